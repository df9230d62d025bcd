"""The same stand-in (`fake_qdrant`), spoken to by gRPC: messages are Qdrant's own, as qdrant-client carries them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
from qdrant_client import grpc as messages
from qdrant_client.conversions.conversion import grpc_to_payload, payload_to_grpc

from tests.contract.fake_qdrant import FakeQdrant, Json

DONE = messages.UpdateResult(operation_id=0, status=messages.UpdateStatus.Completed)


class GrpcFace:
    """A gRPC server on a free port over a fake's rows."""

    def __init__(self, fake: FakeQdrant) -> None:
        self.server = grpc.server(ThreadPoolExecutor(4))
        messages.add_CollectionsServicer_to_server(Collections(fake), self.server)
        messages.add_PointsServicer_to_server(Points(fake), self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def close(self) -> None:
        self.server.stop(None).wait()


class Collections(messages.CollectionsServicer):
    def __init__(self, fake: FakeQdrant) -> None:
        self.fake = fake

    def List(self, request: Any, context: Any) -> Any:
        names = [messages.CollectionDescription(name=name) for name in self.fake.rows]
        return messages.ListCollectionsResponse(collections=names)

    def CollectionExists(self, request: Any, context: Any) -> Any:
        found = messages.CollectionExists(exists=request.collection_name in self.fake.rows)
        return messages.CollectionExistsResponse(result=found)

    def Create(self, request: Any, context: Any) -> Any:
        self.fake.rows.setdefault(request.collection_name, {})
        return messages.CollectionOperationResponse(result=True)

    def Delete(self, request: Any, context: Any) -> Any:
        return messages.CollectionOperationResponse(
            result=self.fake.rows.pop(request.collection_name, None) is not None
        )


class Points(messages.PointsServicer):
    def __init__(self, fake: FakeQdrant) -> None:
        self.fake = fake

    def _rows(self, name: str, context: Any) -> dict[str, tuple[np.ndarray, Json]]:
        if name not in self.fake.rows:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Collection `{name}` doesn't exist!")
        return self.fake.rows[name]

    def CreateFieldIndex(self, request: Any, context: Any) -> Any:
        return messages.PointsOperationResponse(result=DONE)

    def Upsert(self, request: Any, context: Any) -> Any:
        rows = self._rows(request.collection_name, context)
        for point in request.points:
            vector = point.vectors.vector
            array = np.array(vector.dense.data if vector.HasField("dense") else vector.data)
            payload = grpc_to_payload(point.payload)
            rows[point.id.uuid] = (array / np.linalg.norm(array), payload)
        return messages.PointsOperationResponse(result=DONE)

    def Delete(self, request: Any, context: Any) -> Any:
        for number in request.points.points.ids:
            self._rows(request.collection_name, context).pop(number.uuid, None)
        return messages.PointsOperationResponse(result=DONE)

    @staticmethod
    def _shown(number: str, row: tuple[np.ndarray, Json]) -> Any:
        vector = messages.VectorOutput(dense=messages.DenseVector(data=row[0].tolist()))
        return messages.RetrievedPoint(
            id=messages.PointId(uuid=number),
            payload=payload_to_grpc(row[1]),
            vectors=messages.VectorsOutput(vector=vector),
        )

    def Get(self, request: Any, context: Any) -> Any:
        rows = self._rows(request.collection_name, context)
        found = [self._shown(each.uuid, rows[each.uuid]) for each in request.ids if each.uuid in rows]
        return messages.GetResponse(result=found)

    def Count(self, request: Any, context: Any) -> Any:
        count = len(self._rows(request.collection_name, context))
        return messages.CountResponse(result=messages.CountResult(count=count))

    @staticmethod
    def _asked(given: Any) -> Json:
        """A filter, as REST has it."""
        must = [{"key": each.field.key, "match": {"value": each.field.match.keyword}} for each in given.must]
        return {"filter": {"must": must}}

    def Scroll(self, request: Any, context: Any) -> Any:
        rows = self._rows(request.collection_name, context)
        begin = request.offset.uuid if request.HasField("offset") else ""
        chosen = sorted(number for number in self.fake.of(rows, self._asked(request.filter)) if number >= begin)
        shown = [self._shown(each, rows[each]) for each in chosen[: request.limit]]
        if len(chosen) <= request.limit:
            return messages.ScrollResponse(result=shown)
        return messages.ScrollResponse(result=shown, next_page_offset=messages.PointId(uuid=chosen[request.limit]))

    def QueryBatch(self, request: Any, context: Any) -> Any:
        rows = self._rows(request.collection_name, context)
        answers = []
        for query in request.query_points:
            search = self._asked(query.filter) | {
                "query": {"nearest": list(query.query.nearest.dense.data)}, "limit": query.limit,
                "score_threshold": query.score_threshold if query.HasField("score_threshold") else None,
            }  # fmt: skip
            hits = [
                messages.ScoredPoint(
                    id=messages.PointId(uuid=hit["id"]), payload=payload_to_grpc(hit["payload"]), score=hit["score"]
                )
                for hit in self.fake.nearest(rows, search)
            ]
            answers.append(messages.BatchResult(result=hits))
        return messages.QueryBatchResponse(result=answers)
