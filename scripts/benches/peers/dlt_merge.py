"""dlt's rest_api source, merged into PostgreSQL by primary key. Runs in an environment of its own, without the hub's code.

python dlt_merge.py DATABASE_URL PORT FOLDER
"""

import json
import os
import resource
import sys

url, port, folder = sys.argv[1:4]
os.environ.update(RUNTIME__DLTHUB_TELEMETRY="false", RUNTIME__LOG_LEVEL="ERROR", DLT_DATA_DIR=folder)

import dlt  # noqa: E402
from dlt.sources.rest_api import rest_api_source  # noqa: E402


def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


source = rest_api_source(
    {
        "client": {
            "base_url": f"http://127.0.0.1:{port}/",
            "paginator": {"type": "json_link", "next_url_path": "paging.next.link"},
        },
        "resources": [
            {
                "name": "contacts",
                "primary_key": "id",
                "write_disposition": {"disposition": "merge", "strategy": "upsert"},
                "endpoint": {
                    "path": "crm/v3/objects/contacts",
                    "params": {"limit": 100},
                    "data_selector": "results",
                },
            }
        ],
    }
)
pipeline = dlt.pipeline(
    "bench", destination=dlt.destinations.postgres(url), dataset_name="bench_dlt", pipelines_dir=folder
)
print("begin", json.dumps({"cpu": cpu()}), flush=True)
sys.stdin.readline()
pipeline.run(source)
print("end", json.dumps({"cpu": cpu()}), flush=True)
