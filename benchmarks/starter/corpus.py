"""Made-up voices that say made-up words: the speech that `starter` hears, from free synthesisers.

    apt-get install espeak-ng flite festival festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts \
        festvox-ca-ona-hts festvox-ru festvox-italp16k festvox-itapc16k festival-ca festival-czech \
        festvox-czech-dita festvox-czech-krb festvox-czech-machac festvox-czech-ph festival-hi \
        festvox-hi-nsk festival-mr festvox-mr-nsk festival-te festvox-te-nsk festvox-suopuhe-lj \
        festvox-suopuhe-mv
    python -m benchmarks.starter.corpus --out runs/starter/corpus --jobs 2

Each clip is drawn from (seed, its number) alone. It can be interrupted and run again: what is there stays.
"""

import argparse
import csv
import json
import shutil
import subprocess
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.starter.room import RATE, record
from benchmarks.starter.words import english, invented

BATCH = 25  # clips of one voice, synthesised by one process
ESPEAK_VARIANTS = [
    name
    for line in (
        "Adam Alex Alicia Andrea Andy Annie Antonio Auntie Belinda Benjamin Boris Caleb David Denis",
        "Diogo Ed Edward Gene Gustave Henrique Hugo Iven Jacky John Lee Linda Marcelo Marco Mario Max",
        "Michael Michel Miguel Mike Nguyen Pablo Paul Pedro Quincy Rob Robert Steph Storm Tweaky Zac",
        "anika grandpa grandma klatt klatt2 klatt3 klatt4 female1 female2 female3 female4 female5 male1",
        "male2 male3 male4 male5 male6 male7 male8 norbert sandro shelby travis victor croak whisper",
        "female_whisper",
    )
    for name in line.split()
]
ESPEAK_LANGUAGES = [
    name
    for line in (
        "af sq an hy az eu bs bg ca hr cs da nl en-gb en-us en-gb-scotland en-gb-x-rp eo et fi fr-fr fr-",
        "be ka de el kl gn ht hu is id it ky la lv lt lfn mk ms mt nb pl pt pt-br ro ru sr sk sl es",
        "es-419 sw sv tt tr uk uz vi cy ga gd ku om tn quc am fa hi mr ta te ur ko bn",
    )
    for name in line.split()
]
SCRIPTS = {
    **dict.fromkeys(("ru", "bg", "mk", "sr", "uk", "ky", "tt"), "cyrillic"),
    **dict.fromkeys(("hi", "mr"), "devanagari"),
    **dict.fromkeys(("te",), "telugu"),
    **dict.fromkeys(("am",), "latin"),
}
FLITE = ("awb", "rms", "slt", "kal16")
FESTIVAL = {
    "kal_diphone": "english",
    "ked_diphone": "english",
    "cmu_us_slt_arctic_hts": "english",
    "upc_ca_ona_hts": "latin",
    "czech_dita": "latin",
    "czech_krb": "latin",
    "czech_machac": "latin",
    "czech_ph": "latin",
    "hy_fi_mv_diphone": "latin",
    "suo_fi_lj_diphone": "latin",
    "lp_diphone": "latin",
    "pc_diphone": "latin",
    "msu_ru_nsh_clunits": "cyrillic",
    "hindi_NSK_diphone": "devanagari",
    "marathi_NSK_diphone": "devanagari",
    "telugu_NSK_diphone": "telugu",
}
# Of a hundred clips: the concatenative and statistical voices come from people and are heard most.
SHARES = {"espeak": 34, "flite": 26, "festival": 40}


class Manner(NamedTuple):
    """How a clip is said, as far as its synthesiser can."""

    pitch: float  # from 0, low, to 1, high
    lively: float  # range of the pitch, likewise
    quick: float  # pace, likewise
    loud: float  # volume, likewise


class Order(NamedTuple):
    """A clip to be made."""

    number: int
    engine: str
    voice: str
    text: str
    manner: Manner


def order(seed: int, number: int) -> Order:
    """The clip of a number: clips of one batch share their engine and voice."""
    batch = np.random.default_rng([seed, number // BATCH, 0])
    engine = str(batch.choice(list(SHARES), p=np.array(list(SHARES.values())) / 100))
    rng = np.random.default_rng([seed, number, 1])
    manner = Manner(*rng.random(4).tolist())
    syllables = int(rng.integers(8, 26))
    if engine == "espeak":
        language = str(rng.choice(ESPEAK_LANGUAGES))
        voice = f"{language}+{rng.choice(ESPEAK_VARIANTS)}"
        script = "english" if language.startswith("en") else SCRIPTS.get(language, "latin")
    elif engine == "flite":
        voice, script = str(batch.choice(FLITE)), "english"
    else:
        voice = str(batch.choice(list(FESTIVAL)))
        script = FESTIVAL[voice]
    text = english(rng, syllables) if script == "english" else invented(rng, script, syllables)
    return Order(number, engine, voice, text, manner)


def synthesise(orders: list[Order], folder: Path) -> dict[int, Path]:
    """Sound files of orders of one engine, dry."""
    made = {one.number: folder / f"{one.number}.wav" for one in orders}
    if orders[0].engine == "festival":
        script = folder / "say.scm"
        script.write_text("\n".join(_scheme(one, made[one.number]) for one in orders), encoding="utf-8")
        _run(["festival", "-b", str(script)])
        return made
    for one in orders:
        _run(_command(one, made[one.number]))
    return made


def _command(one: Order, path: Path) -> list[str]:
    manner = one.manner
    if one.engine == "flite":
        # Mean of the pitch in Hz about that of the voice; slt is a woman.
        mean = (150 if one.voice == "slt" else 85) + 90 * manner.pitch
        tuned = {
            "int_f0_target_mean": f"{mean:.0f}",
            "int_f0_target_stddev": f"{5 + 45 * manner.lively:.0f}",
            "duration_stretch": f"{1.5 - 0.8 * manner.quick:.2f}",
        }
        words = [word for name, value in tuned.items() for word in ("--setf", f"{name}={value}")]
        return ["flite", "-voice", one.voice, *words, "-t", one.text, "-o", str(path)]
    rate, pitch, lively = 110 + 150 * manner.quick, 15 + 70 * manner.pitch, 20 + 180 * manner.lively
    text = f'<speak><prosody range="{lively:.0f}%">{one.text}</prosody></speak>'
    said: dict[str, float | str] = {
        "-v": one.voice,
        "-s": rate,
        "-p": pitch,
        "-a": 60 + 100 * manner.loud,
    }
    words = [each for name, value in said.items() for each in (name, _whole(value))]
    return ["espeak-ng", "-m", *words, "-w", str(path), text]


def _whole(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.0f}"


def _scheme(one: Order, path: Path) -> str:
    manner = one.manner
    mean, deviation = 90 + 120 * manner.pitch, 5 + 45 * manner.lively
    return f"""
(voice_{one.voice})
(Parameter.set 'Duration_Stretch {1.4 - 0.75 * manner.quick:.2f})
(set! int_lr_params '((target_f0_mean {mean:.0f}) (target_f0_std {deviation:.0f})
  (model_f0_mean 170) (model_f0_std 34)))
(unwind-protect
  (utt.save.wave (utt.synth (Utterance Text "{one.text}")) "{path}" 'riff) (print "failed"))"""


def _run(command: list[str]) -> None:
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)


def make_batch(seed: int, first: int, out: Path) -> list[dict[str, object]]:
    """Rows of the clips of a batch; those that a voice could not say are left out."""
    report = out / "batches" / f"{first}.json"
    if report.exists():
        rows: list[dict[str, object]] = json.loads(report.read_text())
        return rows
    orders = [order(seed, number) for number in range(first, first + BATCH)]
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, path in synthesise(orders, Path(scratch)).items():
            one = orders[number - first]
            sound = _dry(path)
            if sound is None:
                continue
            clip = record(sound, one.manner, np.random.default_rng([seed, number, 2]))
            name = f"audio/{number // 1000}/{number}.wav"
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(out / name, clip, RATE, subtype="PCM_16")
            speaker = one.voice if one.engine != "espeak" else one.voice.split("+")[1]
            row = {"engine": one.engine, "voice": f"{one.engine}-{speaker}"}
            rows.append({"path": name, **row, "seconds": round(len(clip) / RATE, 3)})
    report.write_text(json.dumps(rows))
    return rows


def _dry(path: Path) -> tuple[NDArray[np.float64], int] | None:
    try:
        sound, rate = soundfile.read(path)
    except soundfile.LibsndfileError:
        return None
    heard = len(sound) >= rate and np.abs(sound).max() > 1e-3
    return (sound, rate) if heard else None


def main() -> None:
    """Makes the corpus, or the rest of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/starter/corpus"))
    parser.add_argument("--clips", type=int, default=5500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1)
    chosen = parser.parse_args()
    missing = [tool for tool in ("espeak-ng", "flite", "festival") if shutil.which(tool) is None]
    if missing:
        raise SystemExit(f"{missing[0]} is not installed: the packages stand at the top of {__file__}.")
    (chosen.out / "batches").mkdir(parents=True, exist_ok=True)
    firsts = list(range(0, chosen.clips, BATCH))
    with ProcessPoolExecutor(chosen.jobs) as pool:
        count = len(firsts)
        batches = list(pool.map(make_batch, [chosen.seed] * count, firsts, [chosen.out] * count))
    rows = [row for batch in batches for row in batch]
    with (chosen.out / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        # Of fifty clips one validates; one more is a test split, which nothing reads.
        columns = ["path", "label", "engine", "voice", "seconds", "split", *Manner._fields]
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for index, row in enumerate(rows):
            split = {0: "val", 25: "test"}.get(index % 50, "train")
            said = order(chosen.seed, int(Path(str(row["path"])).stem)).manner
            told = {name: round(value, 4) for name, value in said._asdict().items()}
            writer.writerow(row | {"label": row["engine"], "split": split} | told)
    hours = sum(float(str(row["seconds"])) for row in rows) / 3600
    print(f"{len(rows):,} clips, {hours:.2f} hours, {len({row['voice'] for row in rows})} voices")


if __name__ == "__main__":
    main()
