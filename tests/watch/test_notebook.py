"""A notebook shows the page in a frame."""

import contextlib
import http.server
import sys
import threading

import httpx
import pytest


@contextlib.contextmanager
def served(html, host):
    """Serve one page at an address of this machine."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://{host}:{server.server_address[1]}/"
        server.shutdown()
        thread.join()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address")
def test_a_notebook_shows_the_same_in_a_frame_and_no_other_page_can(browser, run):
    from nextword.watch.notebook import watch

    with watch(str(run)) as shown:
        frame = shown._repr_html_()
        assert shown.address in frame
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        with served(frame, "127.0.0.1") as notebook:
            page.goto(notebook)
            inside = page.frame_locator("iframe")
            inside.locator("#heat .piece").first.wait_for()
            assert "how it learned" in inside.locator("h1").text_content()
        with served(frame, "127.0.0.2") as other:
            page.goto(other)
            page.wait_for_timeout(1000)
            assert not page.frames[1].url.startswith(shown.address)
        page.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(shown.address)
