"""A worker of these tests: speaks as headrace/model_worker.py does, needs no package, does what its class is called."""

import json
import os
import socket
import struct
import sys
import time

start = json.load(sys.stdin.buffer)
what = start["class"]
connection = socket.socket(fileno=int(sys.argv[1]))


def answer(batch: int) -> None:
    connection.sendall(struct.pack("<IQI", 12, batch, 0))


answer(0)
if what == "Ends":
    sys.stdout.write("no more\n")
    sys.stdout.flush()
    os._exit(7)
while message := connection.recv(4096):
    if what == "Slow":
        time.sleep(1.2)
    answer(struct.unpack_from("<Q", message, 4)[0])
