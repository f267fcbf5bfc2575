"""Asks a gRPC service's health, over as many connections as its name has addresses: `client.py NAME:PORT CALLS`."""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

target, calls = sys.argv[1], int(sys.argv[2])
# The address is the only thing that says who is spoken to: DNS, and nothing of Konsul's.
with grpc.insecure_channel(f"dns:///{target}", options=[("grpc.lb_policy_name", "round_robin")]) as channel:
    grpc.channel_ready_future(channel).result(timeout=20)
    health = health_pb2_grpc.HealthStub(channel)
    for _ in range(calls):
        call = health.Check.with_call(health_pb2.HealthCheckRequest(), timeout=5)
        print(call[1].peer() if hasattr(call[1], "peer") else "ok", flush=True)
