"""Pushes a gauge and a counter to a Lampad collector from Python.

    pip install grpcio grpcio-tools
    python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. lampad/v1/ingest.proto
    python push_example.py 127.0.0.1:9391

The answer comes after the samples are on the collector's disk. The same pusher_id and sequence, sent again after a broken
connection, are acknowledged and not stored twice.
"""
import os
import sys

import grpc
from lampad.v1 import ingest_pb2, ingest_pb2_grpc


def series(name, kind, value, unit="", **labels):
    return ingest_pb2.PushSeries(
        name=name,
        type=kind,
        unit=unit,
        labels=[ingest_pb2.Label(name=n, value=v) for n, v in labels.items()],
        samples=[ingest_pb2.PushSample(value=value)],  # no timestamp: the moment of arrival
    )


def main(address):
    request = ingest_pb2.PushRequest(
        pusher_id=os.urandom(16),  # keep it for the life of the program
        sequence=1,  # one more for every request
        series=[
            series("queue_length", ingest_pb2.METRIC_TYPE_GAUGE, 17, queue="mail"),
            series("jobs_done_total", ingest_pb2.METRIC_TYPE_COUNTER, 1234, queue="mail"),
        ],
    )
    with grpc.insecure_channel(address) as channel:
        reply = ingest_pb2_grpc.IngestStub(channel).Push(request, timeout=10, wait_for_ready=True)
    for refused in reply.refused:
        print(f"{request.series[refused.series].name}: {refused.reason}", file=sys.stderr)
    print(f"{reply.stored} samples are durable")
    return 1 if reply.refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9391"))
