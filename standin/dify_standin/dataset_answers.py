"""Knowledge bases, documents and found segments in the form of Dify's answers: the fields are those of 1.17."""

import uuid
from typing import Any

from dify_standin import indexing_words, store

Json = dict[str, Any]

_NOT_EXTERNAL = ("id", "api_id", "api_name", "api_endpoint")


def _nothing(*names: str) -> Json:
    return dict.fromkeys(names)


def _author() -> tuple[str | None, str | None]:
    """Return id and name of the account that everything of the API belongs to: the admin's."""
    found = store.row("select id, name from accounts order by created_at limit 1")
    return (str(found["id"]), found["name"]) if found else (None, None)


def _derived(one: object, purpose: str) -> str:
    """Return an id that something has besides its own."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{one} {purpose}"))


def dataset_json(dataset: store.Row) -> Json:
    """Return a knowledge base."""
    counted = store.row("select count(*) as n from documents where dataset_id = %s", dataset["id"])
    count = counted["n"] if counted else 0
    author, name = _author()
    moment = store.timestamp(dataset["created_at"])
    return {
        "id": str(dataset["id"]),
        "name": dataset["name"],
        "description": dataset["description"],
        "provider": "vendor",
        "permission": dataset["permission"],
        "data_source_type": None,
        "indexing_technique": dataset["indexing_technique"],
        "app_count": 0,
        "document_count": count,
        "word_count": 0,
        "created_by": author,
        "author_name": name,
        "created_at": moment,
        "updated_by": author,
        "updated_at": moment,
        "embedding_model": dataset["embedding_model"],
        "embedding_model_provider": dataset["embedding_model_provider"],
        "embedding_available": None,
        "retrieval_model_dict": {
            "search_method": "semantic_search",
            "reranking_enable": False,
            "reranking_mode": None,
            "reranking_model": {"reranking_provider_name": "", "reranking_model_name": ""},
            "weights": None,
            "top_k": 2,
            "score_threshold_enabled": False,
            "score_threshold": None,
        },
        "summary_index_setting": _nothing("enable", "model_name", "model_provider_name", "summary_prompt"),
        "tags": [],
        "doc_form": None,
        "external_knowledge_info": {f"external_knowledge_{part}": None for part in _NOT_EXTERNAL},
        "external_retrieval_model": {"top_k": 2, "score_threshold": 0.0, "score_threshold_enabled": None},
        "doc_metadata": [],
        "built_in_field_enabled": False,
        **_nothing("pipeline_id"),
        "runtime_mode": "general",
        **_nothing("chunk_structure"),
        "icon_info": _nothing("icon_type", "icon", "icon_background", "icon_url"),
        "is_published": False,
        "total_documents": count,
        "total_available_documents": count,
        "enable_api": True,
        "is_multimodal": False,
        "maintainer": author,
    }


def document_json(document: store.Row) -> Json:
    """Return a document."""
    author, _ = _author()
    file, moment = _derived(document["id"], "file"), document["created_at"]
    waiting = document["indexing_status"] == "waiting"
    uploaded = {
        "id": file,
        "name": document["name"],
        "size": document["size"],
        "extension": "txt",
        "mime_type": "text/plain",
        "created_by": author,
        "created_at": moment.timestamp(),
    }
    return {
        "id": str(document["id"]),
        "position": 1,
        "data_source_type": "upload_file",
        "data_source_info": {"upload_file_id": file},
        "data_source_detail_dict": {"upload_file": uploaded},
        "dataset_process_rule_id": _derived(document["dataset_id"], "rule"),
        "name": document["name"],
        "created_from": "api",
        "created_by": author,
        "created_at": store.timestamp(moment),
        "tokens": None if waiting else document["size"] // 4,
        "indexing_status": document["indexing_status"],
        "error": document["error"],
        "enabled": True,
        **_nothing("disabled_at", "disabled_by"),
        "archived": False,
        "display_status": "queuing" if waiting else "available",
        "word_count": None if waiting else document["size"],
        "hit_count": 0,
        "doc_form": "text_model",
        "doc_metadata": [],
        "summary_index_status": None,
        "need_summary": False,
    }


def record_json(segment: store.Row, score: float) -> Json:
    """Return a found segment."""
    author, _ = _author()
    moment = store.timestamp(segment["document_created_at"])
    return {
        "segment": {
            "id": str(segment["id"]),
            "position": segment["position"],
            "document_id": str(segment["document_id"]),
            "content": segment["content"],
            **_nothing("sign_content", "answer"),
            "word_count": len(segment["content"]),
            "tokens": len(segment["content"]) // 4,
            # Keywords belong to the economy index.
            "keywords": [] if segment["embedding"] else segment["keywords"],
            "index_node_id": _derived(segment["id"], "node"),
            "index_node_hash": indexing_words.checksum(segment["content"]),
            "hit_count": 0,
            "enabled": True,
            **_nothing("disabled_at", "disabled_by"),
            "status": "completed",
            "created_by": author,
            **dict.fromkeys(("created_at", "indexing_at", "completed_at"), moment),
            **_nothing("error", "stopped_at"),
            "document": {
                "id": str(segment["document_id"]),
                "data_source_type": "upload_file",
                "name": segment["document_name"],
                **_nothing("doc_type", "doc_metadata"),
            },
        },
        "child_chunks": [],
        "score": score,
        "tsne_position": None,
        "files": [],
        "summary": None,
    }
