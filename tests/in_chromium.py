"""A real headless Chromium, and a JupyterLab as a reader starts it, for the tests of both browsers."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

from interp_lib.pipeline.doctor import find_chromium

# Software WebGL, and none of the requests that Chromium makes on its own.
CHROMIUM_FLAGS = [
    "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking",
    "--disable-quic", "--no-first-run", "--disable-component-update", "--disable-sync",
]  # fmt: skip
needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="no Chromium here: apt-get install chromium")

# The toolbar calls a notebook without a kernel idle too; keys pressed before the kernel is there run nothing.
KERNEL_READY = """() => {
    const toolbar = document.querySelector('.jp-NotebookPanel-toolbar');
    const kernel = toolbar?.querySelector('.jp-KernelName')?.textContent ?? '';
    return kernel.includes('Python') && toolbar.querySelector("[data-status='idle']") !== null;
}"""
# The prompt of the first cell is [*] while it runs and has its number afterwards.
STARTED = r"/\[[*\d]+\]/.test(document.querySelector('.jp-CodeCell .jp-InputPrompt').textContent)"


@contextmanager
def running_chromium():
    """A Playwright browser."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@contextmanager
def running_lab(folder, *arguments):
    """`interp browse ARGUMENTS` in ``folder`` → address of its JupyterLab, whose token is `test`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "interp_lib.cli", "browse", *arguments, "--port", str(port), "--no-open"]
    environment = {
        **os.environ, "JUPYTER_TOKEN": "test", "JUPYTER_CONFIG_DIR": str(folder / "config"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    with (folder / "lab.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(1800):  # three minutes: of a machine that trains beside its tests
            assert process.poll() is None, (folder / "lab.log").read_text()
            try:
                urllib.request.urlopen(f"{address}/api?token=test", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise AssertionError(f"JupyterLab did not answer: {(folder / 'lab.log').read_text()}")
        yield address
    finally:
        process.terminate()  # JupyterLab stops its kernels
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def open_notebook(page, address):
    """Open `browse.ipynb` in ``page``, and run its cell once its kernel is there."""
    from playwright.sync_api import TimeoutError

    page.set_default_timeout(300_000)  # of machines that train beside their tests
    page.goto(f"{address}/lab/tree/browse.ipynb?token=test&reset")
    page.wait_for_function(KERNEL_READY)
    try:
        page.locator(".jp-CodeCell .cm-content").first.click(timeout=60_000)
        page.keyboard.press("Shift+Enter")
        page.wait_for_function(STARTED, timeout=60_000)
    except TimeoutError as error:
        said = page.locator(".jp-Dialog").all_inner_texts()
        raise AssertionError(f"JupyterLab did not run the first cell. Its dialogs: {said}") from error
