"""The worker's part of a knowledge base: it cuts documents into segments, and notes their keywords and vectors."""

import json

from dify_standin import knowledge, store
from dify_standin.errors import ApiError
from dify_standin.indexing_words import chunks, keywords, paragraphs
from dify_standin.model_calls import CallError, embed
from dify_standin.work import celery

QUEUE = "dataset"


@celery.task(name="index_document")
def index_document(document_id: str) -> None:
    """Read a document's text from the storage volume and index it; note why when that fails."""
    document = store.row("select * from documents where id = %s", document_id)
    if document is None:
        return
    store.rows("update documents set indexing_status = 'indexing' where id = %s", document_id)
    try:
        with open(store.storage_path(document["key"]), encoding="utf-8") as stream:
            text = stream.read()
        pieces, vectors = _indexed(document, text)
    except (OSError, ApiError, CallError) as problem:
        store.rows(
            "update documents set indexing_status = 'error', error = %s where id = %s",
            str(problem),
            document_id,
        )
        return
    with store.transaction() as connection:
        connection.execute("delete from segments where document_id = %s", (document_id,))
        for position, (piece, vector) in enumerate(zip(pieces, vectors, strict=True), start=1):
            connection.execute(
                "insert into segments (document_id, position, content, keywords, embedding) "
                "values (%s, %s, %s, %s, %s)",
                (document_id, position, piece, keywords(piece), json.dumps(vector) if vector else None),
            )
        connection.execute(
            "update documents set indexing_status = 'completed', completed_at = now() where id = %s",
            (document_id,),
        )


def _indexed(document: store.Row, text: str) -> tuple[list[str], list[list[float]]]:
    """Return a text's pieces and, in a knowledge base of high quality, their vectors: one request a piece.

    Raises ApiError and CallError.
    """
    dataset = store.row("select * from datasets where id = %s", document["dataset_id"])
    if dataset is None or dataset["indexing_technique"] != "high_quality":
        pieces = paragraphs(text)
        return pieces, [[] for _ in pieces]
    model, pieces = knowledge.embedding_model(dataset), list(chunks(text))
    return pieces, [embed(model, [piece])[0] for piece in pieces]
