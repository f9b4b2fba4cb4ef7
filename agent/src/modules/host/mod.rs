//! The host, as node_exporter tells it.
