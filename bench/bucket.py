"""A folder as a bucket of Google Cloud Storage on loopback, for measurements: lists, whole objects, ranges.

    bench/bucket.py FOLDER PORT      then gs://ANY/… with STORAGE_EMULATOR_HOST=127.0.0.1:PORT means FOLDER/…
"""
import http.server
import os
import re
import sys
import urllib.parse

root, port = os.path.abspath(sys.argv[1]), int(sys.argv[2])


class Bucket(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def head(self, status, length, **headers):
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def listing(self, query):
        prefix = query.get("prefix", "")
        text = "<ListBucketResult>"
        folder = os.path.join(root, prefix)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            path = os.path.join(folder, name)
            if os.path.isdir(path):
                text += f"<CommonPrefixes><Prefix>{prefix}{name}/</Prefix></CommonPrefixes>"
            else:
                text += f"<Contents><Key>{prefix}{name}</Key><Size>{os.path.getsize(path)}</Size>"
                text += "<LastModified>2026-11-26T12:00:00.000Z</LastModified></Contents>"
        body = (text + "</ListBucketResult>").encode()
        self.head(200, len(body))
        self.wfile.write(body)

    def do_GET(self, send=True):
        url = urllib.parse.urlsplit(self.path)
        _, _, key = urllib.parse.unquote(url.path)[1:].partition("/")
        if not key:
            return self.listing(dict(urllib.parse.parse_qsl(url.query)))
        path = os.path.join(root, key)
        if not os.path.isfile(path):
            return self.head(404, 0)
        size, start, status, extra = os.path.getsize(path), 0, 200, {}
        if found := re.match(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start, status = int(found[1]), 206
            extra = {"Content_Range": f"bytes {start}-{size - 1}/{size}"}
        date = "Thu, 26 Nov 2026 12:00:00 GMT"
        self.head(status, size - start, ETag='"1"', Last_Modified=date, **extra)
        if send:
            self.wfile.flush()
            with open(path, "rb") as file:
                try:
                    while start < size:
                        start += os.sendfile(self.connection.fileno(), file.fileno(), start, size - start)
                except OSError:  # whoever read has gone
                    self.close_connection = True

    def do_HEAD(self):
        self.do_GET(send=False)


http.server.ThreadingHTTPServer(("127.0.0.1", port), Bucket).serve_forever()
