"""NLM's descriptor XML and tree file: what is read, what is refused."""

import gzip
import io
from datetime import date
from pathlib import Path

import mesh_2024
import polars as pl
import pytest

from mkailin_assets.mesh.descriptors import (
    UnreadableMesh,
    read_descriptors,
    read_tree_file,
    tree_differences,
)
from mkailin_assets.mesh.tables import MeshDescriptor

RECORD = (
    "<DescriptorRecord DescriptorClass='1'><DescriptorUI>D000001</DescriptorUI>"
    "<DescriptorName><String>First Things</String></DescriptorName>"
    "<TreeNumberList><TreeNumber>A01</TreeNumber></TreeNumberList></DescriptorRecord>"
)
WHOLE = f"<?xml version='1.0'?><DescriptorRecordSet>{RECORD}</DescriptorRecordSet>"
CUT_OFF = "dhimmel_subset_desc2015.xml"


@pytest.fixture
def descriptors_2024(real_data: Path) -> pl.DataFrame:
    return mesh_2024.descriptors(real_data)


def read(text: str | bytes) -> pl.DataFrame:
    content = text.encode() if isinstance(text, str) else text
    return read_descriptors(io.BytesIO(content), "desc1999.gz", 1999)


def test_every_format_from_2006_to_2026_is_read(real_data: Path) -> None:
    read_records = {
        path.name: read_descriptors(path, path.name, 2024).height
        for path in (real_data / "mesh_xml_samples").iterdir()
        if path.name != CUT_OFF
    }
    assert read_records == {
        "hhs_meshrdf_desc-samples_2014.xml": 43,
        "ilios_desc2025.xml": 1,
        "ilios_desc2026.xml": 1,
        "julielab_europiumDescriptor.xml": 1,
        "julielab_mesh2017_snippet.xml": 8,
        "tipplerow_mesh_desc_sample.xml": 5,
        "w3c_xml2006sample.xml": 1,
    }


def test_a_record_is_read_with_all_its_fields(real_data: Path) -> None:
    path = real_data / "mesh_xml_samples" / "w3c_xml2006sample.xml"
    descriptors = MeshDescriptor.validate(read_descriptors(path, path.name, 2006))
    row = descriptors.row(0, named=True)
    assert row.pop("scope_note").startswith("An ionophorous, polyether antibiotic from Streptomyces")
    assert row == {
        "descriptor_ui": "D000001",
        "name": "Calcimycin",
        "tree_numbers": ["D03.438.221.173"],
        "entry_terms": ["A-23187", "A 23187", "Antibiotic A23187", "A23187, Antibiotic", "A23187"],
        "descriptor_class": 1,
        "pharmacological_actions": [],
        "date_created": date(1974, 11, 19),
        "date_revised": date(2003, 7, 30),
        "date_established": date(1984, 1, 1),
        "release_year": 2006,
    }


def test_dates_are_found_under_their_names_of_2026(real_data: Path) -> None:
    path = real_data / "mesh_xml_samples" / "ilios_desc2026.xml"
    row = read_descriptors(path, path.name, 2026).row(0, named=True)
    assert (row["date_created"], row["date_revised"], row["date_established"]) == (
        None,
        date(2016, 12, 8),
        date(2016, 12, 9),
    )
    assert row["pharmacological_actions"] == ["D000002", "D000003"]


def test_a_file_cut_off_in_the_middle_is_refused_by_name(real_data: Path) -> None:
    path = real_data / "mesh_xml_samples" / CUT_OFF
    with pytest.raises(UnreadableMesh, match=rf"{CUT_OFF}: is cut off .* nothing of it was loaded"):
        read_descriptors(path, path.name, 2015)


def test_the_2024_release_is_read_whole(descriptors_2024: pl.DataFrame) -> None:
    assert descriptors_2024.height == 30_764
    assert descriptors_2024["tree_numbers"].list.len().sum() == 64_457
    assert descriptors_2024.filter(pl.col("tree_numbers").list.len() == 0)["name"].sort().to_list() == [
        "Female",
        "Male",
    ]
    MeshDescriptor.validate(descriptors_2024)


def test_a_gzipped_stream_reads_as_the_plain_one_and_stays_open() -> None:
    stream = io.BytesIO(gzip.compress(WHOLE.encode()))
    assert read_descriptors(stream, "desc1999.gz", 1999).equals(read(WHOLE))
    assert not stream.closed


def _with_subset(subset: str, ui: str = "D000001") -> str:
    record = RECORD.replace("D000001", ui)
    return f"<!DOCTYPE DescriptorRecordSet [{subset}]><DescriptorRecordSet>{record}</DescriptorRecordSet>"


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "is empty"),
        (gzip.compress(b""), "is empty"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>", "is an HTML page"),
        (b"Service unavailable", "not well-formed XML"),
        (WHOLE[:-10].encode(), "cut off or not well-formed"),
        (gzip.compress(WHOLE.encode() * 100)[:-20], "is cut off: its gzip stream has no end"),
        (gzip.compress(WHOLE.encode())[:-8] + b"\0" * 8, "is a damaged gzip file"),
        (b"<PubmedArticleSet/>", "has root <PubmedArticleSet>"),
        (b"<DescriptorRecordSet/>", "holds no DescriptorRecord"),
        (WHOLE.replace(RECORD, RECORD + RECORD).encode(), "more than one record of D000001"),
        (WHOLE.replace("First Things", " ").encode(), "has a record without UI or name on line 1"),
        (WHOLE.replace("'1'><D", "'one'><D").encode(), "cannot be read, D000001 First Things"),
        (_with_subset('<!ENTITY a "x">').encode(), "declares entities"),
        (_with_subset('<!ENTITY a SYSTEM "file:///etc/hostname">', "&a;").encode(), "declares entities"),
        (_with_subset('<!ENTITY % a SYSTEM "file:///etc/hostname"> %a;').encode(), "declares entities"),
        (_with_subset("<!ELEMENT DescriptorUI (#PCDATA)>").encode(), "declares entities or elements"),
        (WHOLE.replace("D000001", "&a;").encode(), "not well-formed"),
    ],
)
def test_a_bad_file_is_refused_with_its_cause(content: bytes, cause: str) -> None:
    with pytest.raises(UnreadableMesh, match=cause) as refused:
        read(content)
    assert str(refused.value).startswith("desc1999.gz: ")


def test_a_tree_file_gives_a_row_per_tree_number(real_data: Path) -> None:
    path = real_data / "nlm/projects/mesh/MESH_FILES/meshtrees/mtrees2021.bin"
    places = read_tree_file(path, path.name)
    assert places.row(0) == ("Body Regions", "A01")
    assert places.filter(name="Alzheimer Disease")["tree_number"].to_list() == [
        "C10.228.140.380.100",
        "C10.574.945.249",
        "F03.615.400.100",
    ]


@pytest.mark.parametrize("content", [b"", b"<html></html>\n", b"Body Regions;A01\nBreast\n", b"Breast;12\n"])
def test_what_is_no_tree_file_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableMesh, match=r"mtrees1999\.bin"):
        read_tree_file(io.BytesIO(content), "mtrees1999.bin")


def test_descriptors_and_tree_file_are_compared_both_ways() -> None:
    tree_file = read_tree_file(io.BytesIO(b"First Things;A01\nLast; Things;A02\n"), "mtrees1999.bin")
    same = tree_differences(read(WHOLE), tree_file.head(1))
    assert (same.only_in_descriptors, same.only_in_tree_file) == ([], [])
    moved = tree_differences(read(WHOLE.replace("A01", "A09")), tree_file)
    assert moved.only_in_descriptors == ["A09 First Things"]
    assert moved.only_in_tree_file == ["A01 First Things", "A02 Last; Things"]
