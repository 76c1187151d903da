"""A worker without a port: does a job every 100 ms. Versions that end in `-bad` crash over their first one."""

import os
import time

VERSION = os.environ["VERSION"]

while True:
    time.sleep(0.1)
    if VERSION.endswith("-bad"):
        raise SystemExit("the job has a field that this version does not know")
    print(f"{time.time():.3f} {VERSION} did a job", flush=True)
