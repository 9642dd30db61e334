"""Search in knowledge bases: by keywords in an economy one, by vectors in one of high quality."""

import math
from collections.abc import Sequence
from typing import Any

from dify_standin import indexing_words, models, nodes, store
from dify_standin.errors import ApiError
from dify_standin.llm_node import NodeResult
from dify_standin.model_calls import CallError, embed

Json = dict[str, Any]

TOP_K = 4
_SEGMENTS = (
    "select s.*, d.name as document_name, d.created_at as document_created_at "
    "from segments s join documents d on d.id = s.document_id "
    "where d.dataset_id = %s and d.indexing_status = 'completed' order by d.created_at, s.position"
)


def embedding_model(dataset: store.Row) -> models.Model:
    """Return the model that a knowledge base of high quality is indexed with. Raises ApiError."""
    return models.callable_model(
        str(dataset["embedding_model_provider"]), str(dataset["embedding_model"]), "text-embedding"
    )


def search(
    dataset: store.Row, query: str, top_k: int, threshold: float | None = None
) -> list[tuple[store.Row, float]]:
    """Return the segments nearest to a query, with their scores. Raises ApiError and CallError."""
    segments = store.rows(_SEGMENTS, dataset["id"])
    if dataset["indexing_technique"] == "high_quality":
        (wanted,) = embed(embedding_model(dataset), [query])
        scored = [(one, _similarity(wanted, one["embedding"])) for one in segments if one["embedding"]]
        scored.sort(key=lambda pair: -pair[1])
    else:
        words = set(indexing_words.keywords(query))
        scored = [(one, 0.0) for one in segments if words & set(one["keywords"])]
    return [pair for pair in scored if threshold is None or pair[1] >= threshold][:top_k]


def _similarity(one: Sequence[float], other: Sequence[float]) -> float:
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths if lengths else 0.0


def run_node(data: Json, variables: Json) -> NodeResult:
    """Run a knowledge retrieval node. Raises NodeError."""
    query = str(variables.get(".".join(data["query_variable_selector"])) or "")
    settings = data.get("multiple_retrieval_config") or {}
    threshold = settings.get("score_threshold")
    found: list[tuple[store.Row, store.Row, float]] = []
    for dataset_id in data["dataset_ids"]:
        dataset = store.row("select * from datasets where id = %s", dataset_id)
        if dataset is None:
            continue
        try:
            hits = search(dataset, query, int(settings.get("top_k") or TOP_K), threshold)
        except ApiError as problem:
            raise nodes.NodeError(problem.message) from None
        except CallError as problem:
            raise nodes.NodeError(str(problem)) from None
        found += [(dataset, segment, score) for segment, score in hits]
    found.sort(key=lambda hit: -hit[2])
    kept = found[: int(settings.get("top_k") or TOP_K)]
    result = [_segment(position, *hit) for position, hit in enumerate(kept, start=1)]
    return NodeResult(inputs={"query": query}, outputs={"result": result})


def _segment(position: int, dataset: store.Row, segment: store.Row, score: float) -> Json:
    return {
        "metadata": {
            "_source": "knowledge",
            "position": position,
            "dataset_id": str(dataset["id"]),
            "dataset_name": dataset["name"],
            "document_id": str(segment["document_id"]),
            "document_name": segment["document_name"],
            "data_source_type": "upload_file",
            "segment_id": str(segment["id"]),
            "retriever_from": "workflow",
            "score": score,
            "segment_hit_count": 0,
            "segment_word_count": len(segment["content"]),
            "segment_position": segment["position"],
            "segment_index_node_hash": indexing_words.checksum(segment["content"]),
        },
        "title": segment["document_name"],
        "files": None,
        "content": segment["content"],
    }
