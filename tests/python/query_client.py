"""Asks a collector as a notebook would, through PyPI's prometheus-api-client, and prints what it got as JSON.

    pip install prometheus-api-client
    python query_client.py http://127.0.0.1:9390 orders_total END_SECONDS
"""
import json
import sys
from datetime import datetime, timedelta, timezone

from prometheus_api_client import PrometheusConnect


def main(url, metric, end):
    client = PrometheusConnect(url=url)
    end = datetime.fromtimestamp(float(end), tz=timezone.utc)
    start = end - timedelta(seconds=30)
    chunks = client.get_metric_range_data(metric, start_time=start, end_time=end)
    range_ = client.custom_query_range(f"sum({metric})", start_time=start, end_time=end, step="10")
    print(json.dumps({
        "connected": client.check_prometheus_connection(),
        "metrics": [name for name in client.all_metrics() if name == metric],
        "label_names": sorted(client.get_label_names(params={"match[]": metric})),
        "label_values": client.get_label_values("queue", params={"match[]": metric}),
        "current": client.get_current_metric_value(metric, label_config={"queue": "mail"}),
        "instant": client.custom_query(f"sum({metric})", params={"time": end.timestamp()}),
        "range": range_,
        "raw": chunks,
        "series": client.get_series(start=start, end=end, params={"match[]": metric}),
        "metadata": client.get_metric_metadata(metric),
        "targets": len(client.get_targets()["activeTargets"]),
    }))


if __name__ == "__main__":
    main(*sys.argv[1:4])
