"""Print a board whenever it changes: python watch.py ws://127.0.0.1:8000/boards/main/live"""

import json
import sys

from websockets.sync.client import connect

with connect(sys.argv[1]) as socket:
    for message in socket:
        frame = json.loads(message)
        if frame["type"] == "board":
            rows = (f"{row['rank']}. {row['name']} {row['score']}" for row in frame["top"])
            print(*rows, sep="  ", flush=True)
