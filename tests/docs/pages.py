"""Runs what the pages of the documentation tell their readers to type."""

import glob
import os
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner

from keras_sspcab.cli import app

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.S | re.M)
_SNIPPET = re.compile(r'^ *--8<-- "([^"]+)"$', re.M)


def blocks(path):
    """Returns the language and the content of each block of a page."""
    text = path.read_text("utf-8")
    return [
        (language, _SNIPPET.sub(_included, content))
        for _, language, content in _FENCE.findall(text)
    ]


def _included(match):
    return (ROOT / match[1]).read_text("utf-8").rstrip("\n")


def commands(block):
    """Yields the commands of a block, each of one line or more."""
    command = ""
    for line in block.splitlines():
        command += line
        try:
            is_whole = not command.endswith("\\")
            is_whole &= bool(shlex.split(command, comments=True)) or not command
        except ValueError:  # a quotation goes on
            is_whole = False
        if is_whole and command.strip():
            yield command
        command = "" if is_whole else command.removesuffix("\\") + "\n"
    assert not command.strip(), f"this command does not end: {command}"


def split(command):
    """Returns the words of a command, patterns expanded as a shell does."""
    words = []
    lexer = shlex.shlex(command, posix=False, punctuation_chars=False)
    lexer.whitespace_split = True
    for word in lexer:
        found = glob.glob(word) if "*" in word and word[0] not in "'\"" else []
        words += sorted(found) or shlex.split(word)
    return words


class Reader:
    """Types all of a page into one shell and one Python, in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.names = {"__name__": "__main__"}
        self.servers = []
        self.ports = {}

    def read(self, language, block):
        if language == "python":
            code = self._with_ports(block)
            exec(compile(code, f"<{code[:40]}>", "exec"), self.names)
        elif language == "sh":
            for command in commands(block):
                self.run(command)
        elif name := re.match(r"# (\S+\.toml)\n", block):
            (self.folder / name[1]).write_text(block)

    def run(self, command):
        words = split(command)
        if words[:2] == ["pip", "install"]:
            # What extras are named is checked in tests/test_extras.py.
            assert "tensorflow-serving-api" not in command or (
                "--no-deps" in words
            )
        elif words[-1] == "&":
            self._start(words[:-1])
        elif words[0] == "keras-sspcab" and not {"&&", "|", ">"} & {*words}:
            result = CliRunner().invoke(app, words[1:])
            if not isinstance(result.exception, (SystemExit, type(None))):
                raise result.exception
            assert result.exit_code == 0, f"{command}\n{result.output}"
        else:
            self._shell(command)

    def _shell(self, command):
        result = subprocess.run(
            ["bash", "-c", self._with_ports(command)],
            cwd=self.folder,
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert result.returncode == 0, f"{command}\n{result.stdout}"

    def _start(self, words):
        """Starts a server at the ports of the page, or at free ones."""
        if words[:2] == ["keras-sspcab", "serve"]:
            self.ports = {str(p): str(free_port(p)) for p in (8500, 8501)}
            for option, port in zip(
                ("--grpc-port", "--rest-port"), self.ports.values(), strict=True
            ):
                if option not in words:
                    words += [option, port]
        self.servers.append(
            subprocess.Popen(
                words,
                cwd=self.folder,
                env=_environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )

    def _with_ports(self, text):
        for port, taken in self.ports.items():
            text = text.replace(f"localhost:{port}", f"localhost:{taken}")
        return text

    def close(self):
        for server in self.servers:
            server.terminate()
        for server in self.servers:
            server.wait(60)


def _environment():
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path}


def free_port(wanted):
    """Returns the port, or another if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
