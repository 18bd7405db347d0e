"""The parser for XML from outside."""

from lxml import etree

# Loads no DTD, resolves no entity, opens no file or address.
PARSER = etree.XMLParser(
    resolve_entities=False,
    load_dtd=False,
    no_network=True,
    remove_comments=True,
    remove_pis=True,
    collect_ids=False,
)
