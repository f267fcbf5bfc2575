//! What the API means: the gRPC services, the watch hub, limits and errors.
