"""The job that uploads a release to the Hugging Face Hub: by hand alone."""

import dagster as dg
from pydantic import Field

from mkailin_assets.release.verify import verify
from mkailin_resources.hub import Hub
from mkailin_resources.storage import Storage


class PublishConfig(dg.Config):
    """Which release to upload."""

    release: str = Field("", description="Name of the release; empty: the current one")


class NoSuchRelease(ValueError):
    """There is no release of that name; the message lists those there are."""


class DamagedRelease(ValueError):
    """A release is not as it was made; the message says what is wrong with it."""


@dg.op
def upload_release(context: dg.OpExecutionContext, storage: Storage, hub: Hub, config: PublishConfig) -> None:
    """Upload a release that is there and verifies, in one commit, tagged with its name."""
    hub.check()
    folder = storage.local_folder(release_uri(storage, config.release))
    if findings := verify(folder):
        raise DamagedRelease(f"{folder.name}: {findings[0].file}: {findings[0].found}; nothing was uploaded")
    uploaded = hub.upload(folder, context.log.info)
    context.add_output_metadata(
        {
            "page": dg.MetadataValue.url(uploaded.url),
            "commit": uploaded.commit,
            "files": uploaded.files,
        }
    )


def release_uri(storage: Storage, name: str) -> str:
    """Where the release of that name lies, or the current one; raises `NoSuchRelease`."""
    releases = storage.read_table("corpus_release")
    if releases is None:
        raise NoSuchRelease("there is no release yet: run `make release`, or materialize corpus_release")
    wanted = releases.filter(name=name) if name else releases.filter("is_current")
    if wanted.is_empty():
        raise NoSuchRelease(f"there is no release {name!r}; there are {', '.join(releases['name'])}")
    return str(wanted["uri"][0])


@dg.job(description="Upload a release of the corpus to the Hugging Face Hub (MKAILIN_HUB_REPOSITORY).")
def publish_release() -> None:
    """Upload a release of the corpus to the Hugging Face Hub."""
    upload_release()
