"""Asks a Lampad collector what it offers, by gRPC reflection and health, as tools like grpcurl do.

    pip install grpcio-reflection grpcio-health-checking
    python inspect_service.py 127.0.0.1:9391
"""
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def main(address):
    with grpc.insecure_channel(address) as channel:
        reflection = ProtoReflectionDescriptorDatabase(channel)
        for service in sorted(reflection.get_services()):
            file = reflection.FindFileContainingSymbol(service)
            methods = next(s for s in file.service if f"{file.package}.{s.name}" == service).method
            print(service, *sorted(method.name for method in methods))
        health = health_pb2_grpc.HealthStub(channel)
        reply = health.Check(health_pb2.HealthCheckRequest(service="lampad.v1.Ingest"), timeout=10)
        print("health", health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:9391")
