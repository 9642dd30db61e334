"""The worker's part of a knowledge base: it cuts documents into segments and notes their keywords."""

import re
from collections import Counter

from dify_standin import store
from dify_standin.work import celery

QUEUE = "dataset"
KEYWORDS = 10


def keywords(text: str) -> list[str]:
    """Return the words by which a text is found, the most frequent first."""
    words = (word.lower() for word in re.findall(r"\w+", text) if len(word) > 1)
    return [word for word, _ in Counter(words).most_common(KEYWORDS)]


@celery.task(name="index_document")
def index_document(document_id: str) -> None:
    """Read a document's text from the storage volume and index it; note why when that fails."""
    document = store.row("select * from documents where id = %s", document_id)
    if document is None:
        return
    store.rows("update documents set indexing_status = 'indexing' where id = %s", document_id)
    try:
        with open(store.storage_path(document["key"]), encoding="utf-8") as stream:
            pieces = [piece.strip() for piece in stream.read().split("\n\n") if piece.strip()]
    except OSError as problem:
        store.rows(
            "update documents set indexing_status = 'error', error = %s where id = %s",
            str(problem),
            document_id,
        )
        return
    with store.transaction() as connection:
        connection.execute("delete from segments where document_id = %s", (document_id,))
        for position, piece in enumerate(pieces, start=1):
            connection.execute(
                "insert into segments (document_id, position, content, keywords) values (%s, %s, %s, %s)",
                (document_id, position, piece, keywords(piece)),
            )
        connection.execute(
            "update documents set indexing_status = 'completed', completed_at = now() where id = %s",
            (document_id,),
        )
