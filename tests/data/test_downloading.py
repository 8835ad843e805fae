"""Data sets that are fetched, from a server of this machine."""

import csv
import hashlib
import http.server
import io
import os
import shutil
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from keras_sspcab.data import (
    downloading,
    fetching,
    scan_image_folder,
    scan_video_folder,
)
from keras_sspcab.data.downloading import download, downloadable_data
from keras_sspcab.data.masks import load_mask
from keras_sspcab.files import OutOfSpaceError


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; breaks the first `breaks` answers after half of them."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.requests = []
        self.breaks = 0
        self.knows_ranges = True

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.requests.append(wanted)
        content = server.files.get(self.path.lstrip("/"))
        if content is None:
            self.send_error(404)
            return
        begin = 0
        if wanted and server.knows_ranges:
            begin = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            end = f"{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", f"bytes {begin}-{end}")
        else:
            self.send_response(200)
        rest = content[begin:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if server.breaks:
            server.breaks -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def running():
    server = Server()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def server(running, monkeypatch):
    running.files = {}
    running.requests = []
    running.breaks, running.knows_ranges = 0, True
    monkeypatch.setattr(fetching.time, "sleep", lambda seconds: None)
    return running


def png(color=128, mode="L"):
    buffer = io.BytesIO()
    Image.new(mode, (8, 8), color).save(buffer, "PNG")
    return buffer.getvalue()


def make_zip(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def make_tar(files, mode="w:xz", links=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return buffer.getvalue()


def mvtec():
    files = {"readme.txt": b"-", "license.txt": b"-"}
    for name in ("screw", "tile"):
        for place in (
            *("train/good/000", "train/good/001", "test/good/000"),
            *("test/crack/000", "ground_truth/crack/000_mask"),
        ):
            files[f"./{name}/{place}.png"] = png()
    return files


@pytest.fixture
def fetch_mvtec(server, tmp_path):
    """Downloads an archive in the place of MVTec AD's; its folder."""

    def fetch_mvtec(content, path=tmp_path / "mvtec", **options):
        server.files["a.tar.xz"] = content
        options = {
            "category": "screw",
            "accept_license": True,
            "url": f"{server.address}/a.tar.xz",
            "sha256": hashlib.sha256(content).hexdigest(),
            **options,
        }
        return download("mvtec-ad", path, **options)

    return fetch_mvtec


def tree(folder):
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found)


def test_a_category_is_laid_out_to_be_scanned(fetch_mvtec, tmp_path, server):
    folder = fetch_mvtec(make_tar(mvtec()))
    assert folder == tmp_path / "mvtec" / "screw"
    assert os.listdir(tmp_path / "mvtec") == ["screw"]
    scanned = scan_image_folder(folder)
    assert (len(scanned.train), len(scanned.test)) == (2, 2)
    assert [sample.mask_path is None for sample in scanned.test] == [
        False,
        True,
    ]
    # What is there is not fetched again; what is not, is.
    assert len(server.requests) == 1
    fetch_mvtec(make_tar(mvtec()))
    assert len(server.requests) == 1
    fetch_mvtec(make_tar(mvtec()), category="tile", keep_archives=True)
    names = ["a.tar.xz", "screw", "tile"]
    assert sorted(os.listdir(tmp_path / "mvtec")) == names


def test_broken_connections_continue_where_they_broke(
    fetch_mvtec, server, tmp_path
):
    server.breaks = 3
    content = make_tar({**mvtec(), "noise": os.urandom(300_000)})
    folder = fetch_mvtec(content)
    assert len(scan_image_folder(folder).train) == 2
    begins = [0, *(len(content) * k // 8 for k in (4, 6, 7))]
    for wanted, begin in zip(server.requests, begins, strict=True):
        found = int(wanted.split("=")[1][:-1]) if wanted else 0
        assert abs(found - begin) < 8


def test_a_stopped_download_continues_in_the_next_call(
    fetch_mvtec, server, tmp_path
):
    content = make_tar(mvtec())
    part = tmp_path / "mvtec" / "a.tar.xz.part"
    part.parent.mkdir()
    part.write_bytes(content[:100])
    fetch_mvtec(content)
    assert server.requests == ["bytes=100-"]
    # All of it was there already, but had not been unpacked.
    shutil.rmtree(part.parent / "screw")
    part.write_bytes(content)
    fetch_mvtec(content)
    assert tree(part.parent)[0].startswith("screw/")


def test_servers_without_ranges_begin_again(fetch_mvtec, server, tmp_path):
    server.knows_ranges = False
    server.breaks = 1
    assert len(scan_image_folder(fetch_mvtec(make_tar(mvtec()))).train) == 2


def test_a_server_that_stays_away_ends_it_and_keeps_what_came(
    fetch_mvtec, tmp_path
):
    part = tmp_path / "mvtec" / "a.tar.xz.part"
    part.parent.mkdir()
    part.write_bytes(b"begun")
    with pytest.raises(ValueError, match=r"refused, 5 times.*kept.*mvtec-ad"):
        fetch_mvtec(b"", url="http://127.0.0.1:9/a.tar.xz")
    assert part.read_bytes() == b"begun"


def test_an_address_that_has_gone_names_ways_out(fetch_mvtec, server):
    with pytest.raises(ValueError, match=r"answers 404.*page is.*`url` arg"):
        fetch_mvtec(b"", url=f"{server.address}/b.tar.xz")
    with pytest.raises(ValueError, match="must begin with http"):
        fetch_mvtec(b"", url="ftp://somewhere/b.tar.xz")


def test_a_wrong_archive_is_removed(fetch_mvtec, tmp_path):
    with pytest.raises(ValueError, match=r"SHA-256 is e3b0c.*removed"):
        fetch_mvtec(b"", sha256="0" * 64)
    assert not tree(tmp_path)


def test_an_archive_put_there_by_hand_is_checked(fetch_mvtec, server, tmp_path):
    content = make_tar(mvtec())
    path = tmp_path / "mvtec" / "a.tar.xz"
    path.parent.mkdir()
    path.write_bytes(b"another")
    with pytest.raises(ValueError, match="not the archive that is expected"):
        fetch_mvtec(content)
    assert path.read_bytes() == b"another"
    path.write_bytes(content)
    fetch_mvtec(content)
    assert not server.requests
    # It is not ours to remove.
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "name", ["../evil.png", "/evil.png", "screw/../../evil.png", "C:\\evil.png"]
)
@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_names_that_lead_out_are_refused(fetch_mvtec, tmp_path, name, make):
    content = make({**mvtec(), name: b"evil"})
    with pytest.raises(ValueError, match="not to be trusted"):
        fetch_mvtec(content)
    assert tree(tmp_path) == ["mvtec/a.tar.xz"]


def test_links_are_left_out(fetch_mvtec):
    links = [("screw/train/good/002.png", "/etc/passwd")]
    folder = fetch_mvtec(make_tar(mvtec(), links=links))
    assert len(scan_image_folder(folder).train) == 2
    member = zipfile.ZipInfo("tile/train/good/002.png")
    member.external_attr = 0o120777 << 16
    content = make_zip({**mvtec(), member: b"/etc/passwd"})
    folder = fetch_mvtec(content, category="tile")
    assert len(scan_image_folder(folder).train) == 2


def test_a_broken_archive_leaves_nothing_half(fetch_mvtec, tmp_path):
    whole = make_tar({**mvtec(), "noise": os.urandom(100_000)})
    damaged = bytearray(make_zip(mvtec()))
    damaged[60:70] = bytes(10)
    for content in (whole[:50_000], damaged, b"no archive at all"):
        with pytest.raises(ValueError, match=r"is broken: .*Remove it"):
            fetch_mvtec(content)
        assert tree(tmp_path) == ["mvtec/a.tar.xz"]
        (tmp_path / "mvtec" / "a.tar.xz").unlink()
    with pytest.raises(ValueError, match=r"holds no screw, but tile/"):
        fetch_mvtec(make_tar({"tile/a.png": b""}))


def test_room_is_asked_for_first(fetch_mvtec, monkeypatch, tmp_path, server):
    usage = shutil._ntuple_diskusage(1000, 900, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OutOfSpaceError, match=r"0\.0 GB are free"):
        fetch_mvtec(make_tar(mvtec()))
    assert not tree(tmp_path)


def test_a_full_disk_keeps_what_came(fetch_mvtec, small_disk, tmp_path):
    content = make_tar({**mvtec(), "noise": os.urandom(3_000_000)})
    with small_disk(2_000_000), pytest.raises(OutOfSpaceError):
        fetch_mvtec(content)
    assert tree(tmp_path) == ["mvtec/a.tar.xz.part"]
    assert len(scan_image_folder(fetch_mvtec(content)).train) == 2
    # And while it is unpacked.
    content = make_tar({**mvtec(), "tile/test/big": bytes(3_000_000)})
    with small_disk(2_000_000), pytest.raises(OutOfSpaceError):
        fetch_mvtec(content, category="tile")
    assert sorted(os.listdir(tmp_path / "mvtec")) == ["a.tar.xz", "screw"]


# === What is particular to a data set ===


@pytest.fixture
def published(server, monkeypatch):
    """Puts archives in the place of those that are published."""

    def publish(name, *contents):
        found = downloadable_data()[name]
        archives = []
        for archive, content in zip(found.archives, contents, strict=True):
            server.files[archive.file_name] = content
            digest = hashlib.sha256(content).hexdigest()
            archives.append(
                downloading.dataclasses.replace(
                    archive,
                    url=f"{server.address}/{archive.file_name}",
                    sha256=digest,
                )
            )
        monkeypatch.setitem(
            downloadable_data(),
            name,
            downloading.dataclasses.replace(found, archives=tuple(archives)),
        )

    return publish


def test_visa_follows_its_split(published, tmp_path):
    rows = io.StringIO()
    write = csv.writer(rows).writerow
    write(["object", "split", "label", "image", "mask"])
    images, files = "candle/Data/Images", {}
    for number, split in enumerate(("train", "train", "test")):
        name = f"{images}/Normal/000{number}.JPG"
        files[name] = png()
        write(["candle", split, "normal", name, ""])
    mask = np.zeros((8, 8), "uint8")
    mask[2:4] = 3  # Its classes are numbered.
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    files[f"{images}/Anomaly/000.JPG"] = png()
    files["candle/Data/Masks/Anomaly/000.png"] = buffer.getvalue()
    write(
        [
            *("candle", "test", "anomaly", f"{images}/Anomaly/000.JPG"),
            "candle/Data/Masks/Anomaly/000.png",
        ]
    )
    files["pcb1/Data/Images/Normal/0000.JPG"] = png()
    write(["pcb1", "train", "normal", "pcb1/Data/Images/Normal/0000.JPG", ""])
    files["split_csv/1cls.csv"] = rows.getvalue().encode()
    published("visa", make_tar(files, "w"))
    folder = download("visa", tmp_path, category="candle", accept_license=True)
    scanned = scan_image_folder(folder)
    assert (len(scanned.train), len(scanned.test)) == (2, 2)
    (defective,) = [sample for sample in scanned.test if sample.label]
    found = load_mask(defective, (8, 8)).mask
    np.testing.assert_array_equal(found.squeeze() > 0, mask > 0)


def test_avenue_has_its_ground_truth_beside_the_videos(published, tmp_path):
    published(
        "avenue",
        make_zip(
            {
                "Avenue Dataset/training_videos/01.avi": b"-",
                "Avenue Dataset/testing_videos/01.avi": b"-",
                "Avenue Dataset/training_vol/vol01.mat": b"-",
                "__MACOSX/Avenue Dataset/training_videos/._01.avi": b"-",
            }
        ),
        make_zip(
            {
                "ground_truth_demo/testing_label_mask/1_label.mat": b"-",
                "ground_truth_demo/testing_videos/01.avi": b"other",
            }
        ),
    )
    folder = download("avenue", tmp_path / "avenue", accept_license=True)
    assert tree(folder) == [
        "testing_label_mask/1_label.mat",
        "testing_videos/01.avi",
        "training_videos/01.avi",
    ]
    assert (folder / "testing_videos/01.avi").read_bytes() == b"-"
    with pytest.raises(ValueError, match="has no categories"):
        download("avenue", tmp_path, category="a", accept_license=True)
    with pytest.raises(ValueError, match="has 2 archives"):
        download("avenue", tmp_path, sha256="0" * 64, accept_license=True)


def test_avenue_from_a_mirror(published, server, tmp_path, monkeypatch):
    first = make_zip(
        {
            "training_videos/01.avi": b"-",
            "testing_videos/01.avi": b"-",
        }
    )
    second = make_zip({"testing_label_mask/1_label.mat": b"-"})
    published("avenue", first, second)
    server.files = {f"m/{name}": v for name, v in server.files.items()}
    url = f"{server.address}/m/"
    folder = download("avenue", tmp_path / "a", url=url, accept_license=True)
    assert len(tree(folder)) == 3


def test_ucsd_is_scanned_as_published(published, tmp_path):
    top = "UCSD_Anomaly_Dataset.v1p2/UCSDped2"
    files = {
        f"{top}/{place}/{number:03}.tif": png()
        for place in ("Train/Train001", "Test/Test001", "Test/Test001_gt")
        for number in (1, 2)
    }
    files[f"{top}/Train/Train001/._001.tif"] = b"of a Mac"
    files[f"{top}/Test/Test001/.DS_Store"] = b"of a Mac"
    published("ucsd-ped", make_tar(files, "w:gz"))
    folder = download(
        "ucsd-ped", tmp_path, category="ucsdped2", accept_license=True
    )
    scanned = scan_video_folder(folder)
    assert scanned.layout == "ucsd"
    assert [video.num_frames for video in scanned.train] == [2]
    assert scanned.test[0].has_ground_truth


def test_wrong_names_are_named(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'visa'"):
        download("vsa", accept_license=True)
    with pytest.raises(ValueError, match="Did you mean 'screw'"):
        download("mvtec-ad", category="srew", accept_license=True)


@pytest.mark.parametrize(
    "url", ["https://a/visa/", "https://a", "https://a/?file=VisA.tar"]
)
def test_an_address_of_a_folder_is_no_archive(tmp_path, url):
    with pytest.raises(ValueError, match="address of the archive itself"):
        download("visa", tmp_path, accept_license=True, url=url)


def test_nothing_is_fetched_without_the_license(tmp_path):
    with pytest.raises(ValueError, match=r"CC BY-NC-SA 4\.0.*\n.*accept_lic"):
        download("mvtec-ad", tmp_path / "a")
    assert not tree(tmp_path)


def test_the_registry_is_complete():
    for data in downloadable_data().values():
        for archive in data.archives:
            assert len(bytes.fromhex(archive.sha256)) == 32
            assert archive.file_name.endswith((".zip", ".tar", "z"))
        assert data.page.startswith("http")
        assert data.license
