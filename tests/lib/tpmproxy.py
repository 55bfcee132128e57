"""Between csmd and its swtpm: every byte that crosses is kept, and commands fail when told.

    tpmproxy.py serve LISTEN TPM FOLDER     relay from the Unix socket LISTEN to the one of swtpm, until it is killed
    tpmproxy.py tell FOLDER WORD...         tell the one that serves; the exit status is 1 where it does not understand

FOLDER/bus.bin has all commands and responses one after the other, FOLDER/bus.log a line for each command: its code, the
response's code (or "lost"), the lengths of both. What it can be told:

    fail CODE RC N      the next N commands of that code (hexadecimal; "*": of any) are answered with RC, unasked
    lose CODE N         the next N are done by the TPM, and the connection breaks in place of the answer
    flip CODE N         in the next N responses a bit of the last byte is changed
    before CODE N HEX,...  before each of the next N, the TPM gets these commands from another client; HANDLE in them stands for
                        the first handle of the command that they go before
    clear *             none of these any more
"""
import os, socket, struct, sys, threading

HEADER, LARGEST = 10, 65536


def take(sock, n):
    got = b""
    while len(got) < n:
        more = sock.recv(n - len(got))
        if not more:
            raise EOFError
        got += more
    return got


def message(sock):
    head = take(sock, HEADER)
    n = struct.unpack(">I", head[2:6])[0]
    if not HEADER <= n <= LARGEST:
        raise EOFError
    return head + take(sock, n - HEADER)


def code_of(text):
    return struct.unpack(">I", text[6:10])[0]


class Bus:
    def __init__(self, tpm, folder):
        self.tpm, self.lock, self.rules = tpm, threading.Lock(), []
        self.bin = open(os.path.join(folder, "bus.bin"), "ab", buffering=0)
        self.log = open(os.path.join(folder, "bus.log"), "a", buffering=1)

    def keep(self, *texts):
        with self.lock:
            self.bin.write(b"".join(texts))

    def note(self, command, answer):
        with self.lock:
            self.log.write("0x%08x %s %d %d\n" % (code_of(command), "0x%08x" % code_of(answer) if answer else "lost",
                                                 len(command), len(answer or b"")))

    def rule(self, code):
        with self.lock:
            for rule in self.rules:
                if rule["code"] in (None, code) and rule["times"] > 0:
                    rule["times"] -= 1
                    return rule
        return {"what": None}

    def tell(self, words):
        what, code = words[0], None if words[1] == "*" else int(words[1], 16)
        rule = {"what": what, "code": code}
        if what == "clear":
            with self.lock:
                self.rules.clear()
            return
        if what == "fail":
            rule.update(answer=struct.pack(">HII", 0x8001, HEADER, int(words[2], 16)), times=int(words[3]))
        elif what in ("lose", "flip"):
            rule.update(times=int(words[2]))
        elif what == "before":
            rule.update(times=int(words[2]), commands=words[3].split(","))
        else:
            raise ValueError(what)
        with self.lock:
            self.rules.append(rule)

    def exchange(self, to, command):
        to.sendall(command)
        return message(to)

    def relay(self, client):
        to = socket.socket(socket.AF_UNIX)
        try:
            to.connect(self.tpm)
            while True:
                command = message(client)
                self.keep(command)
                rule = self.rule(code_of(command))
                if rule["what"] == "before":
                    for text in rule["commands"]:
                        foreign = bytes.fromhex(text.replace("HANDLE", command[10:14].hex()))
                        self.note(foreign, self.exchange(to, foreign))
                answer = rule["answer"] if rule["what"] == "fail" else self.exchange(to, command)
                if rule["what"] == "lose":
                    self.note(command, None)
                    return
                if rule["what"] == "flip":
                    answer = answer[:-1] + bytes([answer[-1] ^ 4])
                self.keep(answer)
                self.note(command, answer)
                client.sendall(answer)
        except (EOFError, OSError):
            pass
        finally:
            client.close()
            to.close()

    def listen_for_words(self, path):
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
        s.listen(4)
        while True:
            conn = s.accept()[0]
            try:
                self.tell(conn.makefile().readline().split())
                conn.sendall(b"ok\n")
            except (ValueError, IndexError, OSError) as fault:
                conn.sendall(b"not understood: %s\n" % repr(fault).encode())
            finally:
                conn.close()


def serve(listen, tpm, folder):
    bus = Bus(tpm, folder)
    s = socket.socket(socket.AF_UNIX)
    s.bind(listen)
    threading.Thread(target=bus.listen_for_words, args=(os.path.join(folder, "tell"),), daemon=True).start()
    s.listen(16)
    while True:
        threading.Thread(target=bus.relay, args=(s.accept()[0],), daemon=True).start()


def tell(folder, words):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10)
    s.connect(os.path.join(folder, "tell"))
    s.sendall((" ".join(words) + "\n").encode())
    answer = s.makefile().readline().strip()
    if answer != "ok":
        sys.exit(answer)


if __name__ == "__main__":
    if len(sys.argv) == 5 and sys.argv[1] == "serve":
        serve(*sys.argv[2:])
    elif len(sys.argv) >= 5 and sys.argv[1] == "tell":
        tell(sys.argv[2], sys.argv[3:])
    else:
        sys.exit(__doc__)
