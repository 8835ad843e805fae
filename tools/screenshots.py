"""Makes the pictures in docs/images of real runs, with Chromium.

    python tools/screenshots.py [--data FOLDER] [--work FOLDER] [PAGE ...]

Pages are report, video, comparison, server and watch; the picture `result`
shows defects as well, and `few_images` and `drift` are charts of what was
measured; `thresholds` is the server with regions, `fit` and `tiles` show what
the model sees. Without a folder of the magnetic tiles (Huang et al. 2018) in
MVTec's layout, which are free to use with citation, images of bricks with drawn
defects are written. Runs that are in the work folder are kept.
"""

import argparse
import contextlib
import csv
import functools
import io
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait
from skimage import data

from keras_sspcab.compare.statistics import t_interval
from keras_sspcab.data import resize, write_texture_folder
from keras_sspcab.data.image_files import load_photo
from keras_sspcab.data.video import video_writer
from keras_sspcab.layers import ImageRegistration, RigidResampling
from keras_sspcab.pictures.heat import outline_regions, seen_part
from keras_sspcab.report import overlay
from keras_sspcab.report.content import read_evaluated_run
from keras_sspcab.runs import Run

ROOT = Path(__file__).resolve().parents[1]
TILES = ROOT.parent / "shared" / "data" / "magnetic_tile"
IMAGES = ROOT / "docs" / "images"
# Width, height and pixels a point: a laptop and a phone.
SIZES = {"wide": (1366, 860, 1), "narrow": (390, 780, 2)}
REGIONS = """
[[region]]
name = "left"
box = [0.03, 0.05, 0.6, 0.95]

[[region]]
name = "right"
box = [0.64, 0.05, 0.97, 0.95]
"""
PICTURE = {"quality": 80, "method": 6}

CLI = (sys.executable, "-m", "keras_sspcab.cli")

Browser = Any


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE")
    parser.add_argument("--data", type=Path, default=TILES)
    parser.add_argument(
        "--work", type=Path, default=ROOT / ".build" / "screenshots"
    )
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    IMAGES.mkdir(parents=True, exist_ok=True)
    studio = Studio(arguments.work.resolve(), arguments.data)
    makers = ("result", "report", "video", "comparison", "server", "watch")
    makers += ("thresholds", "few_images", "drift", "alignment", "fit", "tiles")
    makers += ("products",)
    for name in arguments.pages or makers:
        getattr(studio, name)()
    size = sum(path.stat().st_size for path in IMAGES.iterdir())
    print(f"{IMAGES}: {size / 1e6:.2f} MB")


class Studio:
    """Makes data and runs when they are needed, and pictures of pages."""

    def __init__(self, work: Path, source: Path) -> None:
        self._work = work
        self._source = source

    # === Pictures ===

    def result(self) -> None:
        """Defects, their heat maps and the true masks, none of them chosen."""
        defects: dict[str, list[Any]] = {}
        run = read_evaluated_run(self._image_run)
        for image in run.images:
            if image.label == 1:
                defects.setdefault(image.defect, []).append(image)
        side, edge, label = 220, 10, 30
        width = len(defects) * (side + edge) - edge
        sheet = Image.new("RGB", (width, 3 * (side + edge) + label), "white")
        draw = ImageDraw.Draw(sheet)
        limit = 2 * (run.pixel_threshold or 1.0)
        for column, (name, images) in enumerate(sorted(defects.items())):
            # The middle one: half of its kind are easier, half are harder.
            images.sort(key=lambda image: image.score)
            image = images[len(images) // 2]
            photo = Image.open(image.path).convert("RGB").resize((side, side))
            heat = overlay(np.asarray(photo), image.load_map(), limit)
            mask = Image.open(image.mask_path).convert("L").point(_is_defect)
            x = column * (side + edge)
            for row, picture in enumerate((photo, Image.fromarray(heat), mask)):
                resized = picture.resize((side, side))
                sheet.paste(resized, (x, label + row * (side + edge)))
            verdict = "flagged" if image.is_anomalous else "missed"
            draw.text(
                (x, 4),
                f"{name}: {image.score:.1f}, {verdict}",
                "#16191d",
                ImageFont.load_default(17),
            )
        sheet.save(IMAGES / "result.jpg", quality=82, optimize=True)

    def report(self) -> None:
        address = (self._image_run / "report.html").as_uri()
        with _browser() as browser:
            self._shoot(browser, "report", address)
            self._shoot(browser, "report-gallery", address, _sort_gallery)

    def video(self) -> None:
        address = (self._video_run / "report.html").as_uri()
        with _browser() as browser:
            self._shoot(browser, "report-video", address, _to("#timelines"))

    def comparison(self) -> None:
        out = self._work / "comparison"
        # What was measured before is not done again.
        self._call(
            *("compare", "--models", "multiscale_padim", "--seeds", "3"),
            *("--data", self._data.name, "--out", out.name),
        )
        address = (out / "comparison.html").as_uri()
        with _browser() as browser:
            self._shoot(browser, "comparison", address)

    def server(self) -> None:
        self._shoot_server("server", self._image_run)

    def thresholds(self) -> None:
        """The page of the server at another sensitivity, with two regions."""
        regions = self._work / "regions.toml"
        regions.write_text(REGIONS)
        options = ("--channels", "1", "--roi", regions.name)
        run = self._run(self._data, *options, name="regions")
        self._shoot_server("thresholds", run, sensitivity=62)

    def _shoot_server(
        self, name: str, run: Path, sensitivity: int | None = None
    ) -> None:
        tests = sorted((self._data / "test").glob("*/*.png"))
        chosen = [*tests[:: max(1, len(tests) // 9)]][:9]
        chosen += [p for p in tests if p.parent.name == "crack"][:1]

        def upload(browser: Browser) -> None:
            browser.find_element("id", "file").send_keys(
                "\n".join(map(str, reversed(chosen)))
            )
            _wait(browser, lambda: not _text(browser, "#strip").count("\u2026"))
            browser.find_elements("css selector", "#strip button")[-1].click()
            if sensitivity is not None:
                browser.execute_script(
                    "const slider = document.getElementById('sensitivity');"
                    "slider.value = arguments[0];"
                    "slider.dispatchEvent(new Event('input'));",
                    sensitivity,
                )
            _scroll(browser, "#drop" if sensitivity is None else "#strip")

        port = _free_port()
        options = ("--rest-port", port, "--grpc-port", 0)
        command = ("serve", run, *options)
        with (
            _running(*command, port=port, cwd=self._work) as address,
            _browser() as browser,
        ):
            self._shoot(browser, name, address, upload)

    def watch(self) -> None:
        film = self._work / "belt.mp4"
        if not film.exists():
            _write_film(film, _belt(self._data))
        port, out = _free_port(), self._work / "watch"
        shutil.rmtree(out, ignore_errors=True)

        def until_alarm(browser: Browser) -> None:
            _wait(browser, lambda: _text(browser, "#alarm-count") > "0")
            time.sleep(8)

        options = ("--page", port, "--out", out)
        command = ("watch", self._image_run, film.name, *options)
        with (
            _running(*command, port=port, cwd=self._work) as address,
            _browser() as browser,
        ):
            self._shoot(browser, "watch", address, until_alarm)

    def few_images(self) -> None:
        """What the benchmark of few images has measured, as a chart."""
        path = ROOT / "benchmarks" / "results" / "few_images.csv"
        with path.open(encoding="utf-8", newline="") as file:
            rows = [*csv.DictReader(file)]
        names = sorted({row["data"] for row in rows})
        figure = Figure((9.6, 3.9), dpi=100, layout="constrained")
        axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        hosts = {"MultiScalePaDiM": "#2457c5", "PatchCore": "#b8570c"}
        for axis, name in zip(axes, names, strict=True):
            lines: dict[tuple[str, str], dict[int, list[float]]] = {}
            for row in rows:
                if row["data"] == name:
                    line = lines.setdefault((row["host"], row["symmetric"]), {})
                    line.setdefault(int(row["images"]), []).append(
                        100 * float(row["image_auroc"])
                    )
            for (host, symmetric), line in lines.items():
                points = dict(sorted(line.items()))
                is_plain = symmetric == "none"
                axis.errorbar(
                    [*points],
                    [np.mean(values) for values in points.values()],
                    [_t_error(values) for values in points.values()],
                    color=hosts[host],
                    marker="o" if is_plain else "s",
                    markersize=4,
                    linestyle="-" if is_plain else "--",
                    capsize=2,
                    label=host + ("" if is_plain else f", {symmetric}"),
                )
            axis.set_xscale("log")
            ticks = sorted({count for line in lines.values() for count in line})
            axis.set_xticks(ticks, map(str, ticks))
            axis.minorticks_off()
            axis.set_title(name.replace("_", " "), fontsize=10)
            axis.set_xlabel("normal images")
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8, loc="lower right")
        axes[0].set_ylabel("image AUROC, %")
        figure.savefig(IMAGES / "few-images.webp", pil_kwargs=PICTURE)

    def drift(self) -> None:
        """What the benchmark of a lamp that gets darker has measured."""
        path = ROOT / "benchmarks" / "results" / "drift.csv"
        with path.open(encoding="utf-8", newline="") as file:
            rows = [*csv.DictReader(file)]
        names = sorted({row["data"] for row in rows})
        figure = Figure((9.6, 4.6), dpi=100, layout="constrained")
        axes = figure.subplots(2, len(names), sharex=True, squeeze=False)
        for (top, bottom), name in zip(axes.T, names, strict=True):
            own = [row for row in rows if row["data"] == name]
            images = [int(row["images"]) for row in own]
            shifts = [float(row["brightness_shift"]) for row in own]
            flagged = [10 * int(row["flagged"]) for row in own]
            top.plot(images, shifts, color="#2457c5")
            top.set_title(name.replace("_", " "), fontsize=10)
            window = 10  # a hundred images
            mean = np.convolve(flagged, np.ones(window) / window, "valid")
            bottom.plot(images[window - 1 :], mean, color="#b8570c")
            bottom.set_xlabel("images")
            (first,) = [row for row in own if row["told"]][:1]
            for axis in (top, bottom):
                axis.axvline(int(first["images"]), color="#16191d", ls=":")
                axis.grid(alpha=0.3)
            top.annotate(
                f"told at light {float(first['light']):.2f}",
                (int(first["images"]), 0.04),
                (-6, 0),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="right",
                fontsize=8,
            )
            bottom.set_ylim(bottom=0)
            light = top.twinx()
            lights = [float(row["light"]) for row in own]
            light.plot(images, lights, color="#8a8f98", ls="--")
            light.set_ylim(0, 1.1)
            light.set_ylabel("light (dashed)", fontsize=8)
        axes[0][0].set_ylabel("brightness, standard\ndeviations from normal")
        axes[1][0].set_ylabel("flagged of the last\n100 images, %")
        figure.savefig(IMAGES / "drift.webp", pil_kwargs=PICTURE)

    def alignment(self) -> None:
        """A photograph, turned and shifted, and aligned again."""
        photo = np.float32(data.coffee()[:, 110:510]) / 255
        rng = np.random.default_rng(0)
        angles, shifts = rng.uniform(-3, 3, 5), rng.uniform(-15, 15, (5, 2))
        middle = np.full(2, 199.5)
        poses = []
        for angle, shift in zip(angles, shifts, strict=True):
            cos, sin = np.cos(angle), np.sin(angle)
            turn = np.array([[cos, -sin], [sin, cos]])
            corner = middle - turn @ (middle + shift)
            poses.append(np.column_stack([turn, corner]))
        images = RigidResampling()(np.stack([photo] * 5), np.stack(poses))
        images = images[:, 60:340, 60:340]
        registration = ImageRegistration()
        registration.fit(images)
        aligned = registration(images)["images"]
        rows = [np.concatenate([*part], axis=1) for part in (images, aligned)]
        pixels = np.uint8(255 * np.clip(np.concatenate(rows), 0, 1))
        sheet = Image.fromarray(pixels).resize((1000, 400))
        sheet.save(IMAGES / "alignment.webp", quality=78, method=6)

    def products(self) -> None:
        """What one model of three products says, without being told."""
        lines, path = self._work / "lines", self._work / "runs" / "lines"
        if not lines.exists():
            shutil.copytree(self._data, lines / "tile")
            for texture in ("brick", "grass"):
                write_texture_folder(lines / texture, texture)
        if not (path / "metrics.json").exists():
            shutil.rmtree(path, ignore_errors=True)
            settings = {"data.layout": "products"}
            run = Run.create(path, data=lines, settings=settings)
            run.train()
            run.evaluate()
        run = Run(path)
        chosen = []
        for name in run.model.products:
            images = read_evaluated_run(run.product(name).path).images
            defects = [image for image in images if image.label]
            # The middle one: half are easier, half are harder.
            defects.sort(key=lambda image: image.score)
            chosen.append(Path(defects[len(defects) // 2].path))
        chosen.append(sorted((lines / "tile/test/good").iterdir())[0])
        cup = self._work / "cup.png"
        Image.fromarray(data.coffee()[:, 110:510]).save(cup)
        chosen.append(cup)
        heats = self._work / "heat_maps"
        rows = run.predict(chosen, heat_maps=heats)
        side, edge, label = 220, 10, 30
        width = len(rows) * (side + edge) - edge
        sheet = Image.new("RGB", (width, 2 * (side + edge) + label), "white")
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
        for column, row in enumerate(rows):
            x = column * (side + edge)
            for place, file in enumerate((row["path"], row["heat_map"])):
                picture = Image.open(file).convert("RGB").resize((side, side))
                sheet.paste(picture, (x, label + place * (side + edge)))
            verdict = "flagged" if row["is_anomalous"] else "normal"
            text = f"{row['product']}: {row['anomaly_score']:.1f}, {verdict}"
            draw.text((x, 4), text, "#16191d", font)
        sheet.save(IMAGES / "products.webp", **PICTURE)

    def fit(self) -> None:
        """A strip of a tile as the model sees it, and its heat map."""
        sheet = Image.new("RGB", (3 * 410 - 10, 460), "white")
        draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
        chosen = ""
        for column, fit in enumerate(("stretch", "pad", "crop")):
            folder = self._strips
            path = self._work / "runs" / f"strips-{fit}"
            if not (path / "metrics.json").exists():
                shutil.rmtree(path, ignore_errors=True)
                run = Run.create(path, data=folder, settings={"data.fit": fit})
                run.train()
                run.evaluate()
            run = read_evaluated_run(path)
            defects = [image for image in run.images if image.label]
            if not chosen:
                # The middle one: half are easier, half are harder.
                defects.sort(key=lambda image: image.score)
                chosen = defects[len(defects) // 2].path
            [image] = [one for one in defects if one.path == chosen]
            photo = load_photo(chosen)
            how = run.preprocessing
            seen = resize(np.asarray(photo), (256, 256), fit=fit)
            shown = Image.fromarray(np.uint8(255 * seen)).resize((200, 200))
            limit = 2 * (run.pixel_threshold or 1.0)
            size = photo.size[::-1]
            heat = overlay(
                np.asarray(photo), how.restore(image.load_map(), size), limit
            )
            part = seen_part(how, (256, 256), size, None)
            if part is not None:
                heat = outline_regions(heat, part)
            x = 410 * column
            verdict = "flagged" if image.is_anomalous else "missed"
            text = f"{fit}: {image.score:.1f}, {verdict}"
            draw.text((x, 4), text, "#16191d", font)
            sheet.paste(shown, (x + 100, 34))
            sheet.paste(Image.fromarray(heat).resize((400, 200)), (x, 250))
        sheet.save(IMAGES / "fit.webp", **PICTURE)

    def tiles(self) -> None:
        """A small defect in a large surface, as a whole and in tiles."""
        command = ["benchmarks.small_defects", self._source]
        command += ["--picture", IMAGES / "tiles.webp"]
        subprocess.run(
            [sys.executable, "-m", *map(str, command)], check=True, cwd=ROOT
        )

    def _shoot(
        self, browser: Browser, name: str, address: str, prepare: Any = None
    ) -> None:
        for kind, (width, height, scale) in SIZES.items():
            browser.execute_cdp_cmd(
                "Emulation.setDeviceMetricsOverride",
                {
                    "width": width,
                    "height": height,
                    "deviceScaleFactor": scale,
                    "mobile": kind == "narrow",
                },
            )
            browser.get(address)
            if prepare is not None:
                prepare(browser)
            time.sleep(1)  # pictures are decoded
            pixels = Image.open(io.BytesIO(browser.get_screenshot_as_png()))
            path = IMAGES / f"{name}-{kind}.webp"
            pixels.convert("RGB").save(path, quality=78, method=6)

    # === Data and runs ===

    @functools.cached_property
    def _data(self) -> Path:
        folder = self._work / "magnetic_tile"
        if folder.exists():
            return folder
        if not self._source.is_dir():
            return write_texture_folder(self._work / "brick", texture="brick")
        _copy(self._source, folder, "train/good", 150)
        _copy(self._source, folder, "test/good", 24)
        for kind in sorted((self._source / "ground_truth").iterdir()):
            name = f"ground_truth/{kind.name}"
            for path in _copy(self._source, folder, f"test/{kind.name}", 9):
                mask = f"{path.stem}_mask.png"
                _copy(self._source, folder, name, pattern=mask)
                if not Image.open(folder / name / mask).getbbox():
                    # An empty mask, which the report would name.
                    path.unlink()
                    (folder / name / mask).unlink()
        return folder

    @functools.cached_property
    def _strips(self) -> Path:
        """Upper or lower halves of photographs, where the defect is."""
        folder = self._work / "strips"
        for path in [] if folder.exists() else self._data.rglob("*.png"):
            name = path.relative_to(self._data)
            if name.parts[0] == "ground_truth" or name.parts[1] == "uneven":
                continue
            photo, mask = Image.open(path), None
            top = path.stat().st_size % 2 * photo.height // 2
            kind = name.parts[1]
            truth = Path("ground_truth", kind, f"{path.stem}_mask.png")
            if (self._data / truth).exists():
                mask = Image.open(self._data / truth)
                top = max(0, mask.getbbox()[1] - photo.height // 4)
                top = min(top, photo.height // 2)
            box = (0, top, photo.width, top + photo.height // 2)
            for picture, place in ((photo, name), (mask, truth)):
                if picture is not None:
                    (folder / place).parent.mkdir(parents=True, exist_ok=True)
                    picture.crop(box).save(folder / place)
        return folder

    @functools.cached_property
    def _image_run(self) -> Path:
        return self._run(self._data, "--channels", "1")

    @functools.cached_property
    def _video_run(self) -> Path:
        folder = self._work / "crossing"
        if not folder.exists():
            _write_crossing(folder)
        options = ("--model", "mnad", "--epochs", "15", "--image-size", "64")
        return self._run(folder, *options)

    def _run(self, data: Path, *options: str, name: str = "") -> Path:
        run = Path("runs", name or data.name)
        if not (self._work / run / "report.html").exists():
            shutil.rmtree(self._work / run, ignore_errors=True)
            self._call("train", "--data", data.name, "--run", run, *options)
            self._call("evaluate", run)
            self._call("report", run)
        return self._work / run

    def _call(self, *arguments: Any) -> None:
        # Pages name files as they were given: none of this machine.
        command = [*CLI, *map(str, arguments)]
        subprocess.run(command, check=True, cwd=self._work)


def _t_error(values: list[float]) -> float:
    """Returns half of a 95 % interval of the mean; 0 of one value."""
    if len(values) < 2:
        return 0.0
    low, high = t_interval(np.array(values))
    return float(high - low) / 2


def _copy(
    source: Path, target: Path, folder: str, count: int = 1, pattern: str = "*"
) -> list[Path]:
    """Copies files, from the whole of the folder."""
    paths = sorted((source / folder).glob(pattern))
    paths = paths[:: max(1, len(paths) // count)][:count]
    (target / folder).mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copy(path, target / folder)) for path in paths]


def _write_crossing(folder: Path) -> None:
    """Writes videos of slow dots; in those to test with, one is fast."""
    rng = np.random.default_rng(0)
    for kind, count in (("train", 3), ("test", 4)):
        for number in range(count):
            is_test = kind == "test"
            frames, labels = _walk(rng, 90, 40 if is_test and number else None)
            path = folder / kind / f"crossing {number + 1}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_film(path, frames)
            if is_test:
                (folder / "ground_truth").mkdir(exist_ok=True)
                np.save(folder / "ground_truth" / f"{path.stem}.npy", labels)


def _walk(
    rng: np.random.Generator, length: int, fast_at: int | None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Returns frames of walkers on a square, and which have a fast one."""
    rows = rng.integers(14, 118, 6)
    starts, speeds = rng.uniform(0, 192, 6), rng.choice([-0.8, 0.8], 6)
    ground = rng.normal(150, 3, (128, 192))
    frames, labels = [], np.zeros(length, "uint8")
    for time_ in range(length):
        picture = Image.fromarray(ground.astype("uint8"))
        draw = ImageDraw.Draw(picture)
        for row, start, speed in zip(rows, starts, speeds, strict=True):
            x = (start + speed * time_) % 192
            draw.ellipse((x - 4, row - 10, x + 4, row + 6), fill=50)
        if fast_at is not None and fast_at <= time_ < fast_at + 28:
            x = 7 * (time_ - fast_at)
            draw.rectangle((x - 12, 60, x + 12, 76), fill=230)
            labels[time_] = 1
        frames.append(np.asarray(picture.convert("RGB")))
    return frames, labels


def _belt(data: Path) -> list[np.ndarray]:
    """Returns frames of tiles, two seconds each, now and then defective."""
    good = sorted((data / "test" / "good").iterdir())
    bad = sorted((data / "test").glob("crack/*")) or sorted(
        path
        for path in (data / "test").glob("*/*")
        if path.parent.name != "good"
    )
    order = [*good[:6], bad[0], *good[6:11], bad[1], *good[11:16]]
    return [
        np.asarray(Image.open(path).convert("RGB").resize((256, 256)))
        for path in 4 * order
        for _ in range(20)
    ]


def _write_film(path: Path, frames: list[np.ndarray]) -> None:
    with video_writer(str(path), rate=10) as write:
        for pixels in frames:
            write(pixels)


# === Programs ===


@contextlib.contextmanager
def _running(*arguments: Any, port: int, cwd: Path) -> Iterator[str]:
    """Runs a command in the background; yields its page when it answers."""
    address = f"http://127.0.0.1:{port}/"
    process = subprocess.Popen([*CLI, *map(str, arguments)], cwd=cwd)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"It ended: {arguments}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address).close()
                break
            time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def _browser() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    for flag in ("headless", "no-sandbox", "hide-scrollbars"):
        options.add_argument(f"--{flag}")
    options.binary_location = shutil.which("chromium") or ""
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options=options, service=service)
    try:
        yield browser
    finally:
        browser.quit()


def _text(browser: Browser, selector: str) -> str:
    return str(browser.find_element("css selector", selector).text)


def _wait(browser: Browser, condition: Any) -> None:
    WebDriverWait(browser, 120).until(lambda _: condition())


def _scroll(browser: Browser, selector: str) -> None:
    browser.execute_script(
        "document.documentElement.style.scrollBehavior = 'auto';"
        "document.querySelector(arguments[0]).scrollIntoView()",
        selector,
    )


def _sort_gallery(browser: Browser) -> None:
    """Shows the gallery, defects first."""
    browser.execute_script(
        "const order = document.getElementById('order');"
        "order.value = 'high';"
        "order.dispatchEvent(new Event('change', { bubbles: true }));"
    )
    _scroll(browser, ".toolbar")


def _to(selector: str) -> Any:
    return functools.partial(_scroll, selector=selector)


def _is_defect(value: int) -> int:
    return 255 * (value > 0)


if __name__ == "__main__":
    main()
