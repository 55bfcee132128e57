"""Whole TLS handshakes, one after the other, until standard input ends.

usage: handshakes.py CA PORT... >LOG

Each has a line `BEGUN ENDED RESULT` in LOG: nanoseconds of the wall clock, and `ok` or why it failed. The ports take turns.
"""
import itertools
import select
import socket
import ssl
import sys
import time

context = ssl.create_default_context(cafile=sys.argv[1])


def handshake(port):
    with socket.create_connection(('127.0.0.1', port), timeout=20) as plain:
        with context.wrap_socket(plain, server_hostname='localhost') as tls:
            tls.sendall(b'GET / HTTP/1.0\r\n\r\n')
            return 'ok' if tls.recv(100).startswith(b'HTTP/1.1 200') else 'no answer'


for each in itertools.cycle(sys.argv[2:]):
    begun = time.time_ns()
    try:
        result = handshake(int(each))
    except (ssl.SSLError, OSError) as error:
        result = repr(error)
    print(begun, time.time_ns(), result, flush=True)
    if select.select([sys.stdin], [], [], 0.005)[0]:
        break
