"""Models: what may be read, what they are asked, where they are looked for."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from lightgbm import LGBMClassifier
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from resources.metrika.features import FEATURES
from resources.metrika.models import Model, ModelError, digest, read_model
from resources.metrika.models_directory import ModelsDirectory

NAMES = list(FEATURES)
RANDOM = np.random.default_rng(4)
TABLE = pd.DataFrame(RANDOM.random((200, len(NAMES))) * 100, columns=NAMES)
LABEL = (TABLE["slots"] + TABLE["duration"] > 100).astype(int)

CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "lightgbm": lambda: LGBMClassifier(n_estimators=10, verbose=-1),
    "boosting": lambda: HistGradientBoostingClassifier(max_iter=10),
    "forest": lambda: RandomForestClassifier(10),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
    "calibrated": lambda: CalibratedClassifierCV(LogisticRegression(max_iter=500)),
}


class Exploit:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def trained(name: str = "lightgbm") -> Any:
    return CLASSIFIERS[name]().fit(TABLE, LABEL)


def kept(file: Path, thing: Any) -> Model:
    """The thing in a file, read as a trusted one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    skops.io.dump(thing, file) if file.suffix == ".skops" else joblib.dump(thing, file)
    return read_model(file, frozenset({digest(file.read_bytes())}))


@pytest.mark.parametrize("suffix", [".joblib", ".skops"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_any_classifier_gives_the_probability_of_class_one(tmp_path: Path, name: str, suffix: str):
    classifier = trained(name)
    model = kept(tmp_path / f"m{suffix}", classifier)
    assert list(model.features) == NAMES
    expected = classifier.predict_proba(TABLE)[:, 1]
    np.testing.assert_array_equal(model.probabilities(TABLE.to_numpy()), expected)


@pytest.mark.parametrize("name", ["lightgbm", "forest"])
def test_class_one_is_found_by_its_name_not_by_its_place(tmp_path: Path, name: str):
    classifier = CLASSIFIERS[name]().fit(TABLE, np.where(LABEL == 1, 1, 2))
    model = kept(tmp_path / "m.joblib", classifier)
    np.testing.assert_allclose(
        model.probabilities(TABLE.to_numpy()), classifier.predict_proba(TABLE)[:, 0], rtol=1e-12
    )


def test_three_classes(tmp_path: Path):
    classifier = trained("lightgbm").fit(TABLE, LABEL + (TABLE["bounce"] > 50))
    model = kept(tmp_path / "m.joblib", classifier)
    np.testing.assert_array_equal(
        model.probabilities(TABLE.to_numpy()), classifier.predict_proba(TABLE)[:, 1]
    )


def test_columns_are_asked_for_in_the_model_s_own_order(tmp_path: Path):
    turned = list(reversed(NAMES))
    classifier = trained().fit(TABLE[turned], LABEL)
    model = kept(tmp_path / "m.joblib", classifier)
    assert list(model.features) == turned
    np.testing.assert_array_equal(
        model.probabilities(TABLE[turned].to_numpy()), classifier.predict_proba(TABLE[turned])[:, 1]
    )


def test_no_rows_are_no_probabilities(tmp_path: Path):
    assert kept(tmp_path / "m.joblib", trained()).probabilities(np.empty((0, len(NAMES)))).shape == (0,)


def test_features_that_nobody_computes_are_named(tmp_path: Path):
    strange = TABLE.rename(columns={"slots": "slotz", "bounce": "depth"})
    model = kept(tmp_path / "m.joblib", trained().fit(strange, LABEL))
    with pytest.raises(ModelError, match="wants the features depth, slotz, which are not computed"):
        model.check(FEATURES)


def test_a_table_of_another_width_is_refused(tmp_path: Path):
    model = kept(tmp_path / "m.joblib", trained())
    with pytest.raises(ModelError, match="takes 9 columns, 8 were given"):
        model.probabilities(np.zeros((1, 8)))


@pytest.mark.parametrize("name", ["m.joblib", "m.pkl", "m", "m.skops.joblib"])
def test_an_unlisted_pickle_is_refused_before_it_runs(tmp_path: Path, name: str):
    file, trace = tmp_path / name, tmp_path / "ran"
    file.write_bytes(pickle.dumps(Exploit(trace)))
    with pytest.raises(ModelError, match=f"svod metrika trust {file}") as refusal:
        read_model(file, frozenset())
    assert digest(file.read_bytes()) in (refusal.value.description or "")
    assert not trace.exists()


def test_a_pickle_by_the_name_of_a_safe_file_does_not_run(tmp_path: Path):
    file, trace = tmp_path / "m.skops", tmp_path / "ran"
    file.write_bytes(pickle.dumps(Exploit(trace)))
    with pytest.raises(ModelError, match="is no model that can be read here"):
        read_model(file, frozenset())
    assert not trace.exists()


@pytest.mark.parametrize("foreign", [os.system, subprocess.Popen, np.testing.assert_equal, json.JSONDecoder])
def test_a_safe_file_with_foreign_types_or_functions_is_refused(tmp_path: Path, foreign: Any):
    file = tmp_path / "m.skops"
    skops.io.dump(make_pipeline(FunctionTransformer(foreign), trained()), file)
    with pytest.raises(ModelError, match="holds types that are not of"):
        read_model(file, frozenset())


@pytest.mark.parametrize(
    ("thing", "said"),
    [
        ({"no": "model"}, "does not tell the names of its features"),
        (LinearRegression().fit(TABLE, LABEL), "which has no predict_proba"),
        (LogisticRegression().fit(TABLE.to_numpy(), LABEL), "does not tell the names of its features"),
        (
            RandomForestClassifier(2).fit(TABLE, np.where(LABEL == 1, "yes", "no")),
            "does not know the class 1",
        ),
    ],
)
def test_what_is_no_classifier_is_named(tmp_path: Path, thing: Any, said: str):
    with pytest.raises(ModelError, match=said):
        kept(tmp_path / "m.joblib", thing)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x05", b"plain text"])
@pytest.mark.parametrize("suffix", [".joblib", ".skops"])
def test_a_broken_file_is_one_line(tmp_path: Path, content: bytes, suffix: str):
    file = tmp_path / f"m{suffix}"
    file.write_bytes(content)
    with pytest.raises(ModelError, match="is no model that can be read here"):
        read_model(file, frozenset({digest(content)}))


# Where models are looked for


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A models folder with one trusted pickle for desktop."""
    folder = tmp_path / "models"
    kept(folder / "level4_desktop_slot.joblib", trained())
    ModelsDirectory.at(str(folder)).trust(folder / "level4_desktop_slot.joblib")
    return folder


def test_a_trusted_model_is_read_with_its_threshold(home: Path):
    chosen = ModelsDirectory.at(str(home)).load("desktop")
    assert (chosen.threshold, chosen.version) == (0.48, None)
    assert chosen.label == f"level4_desktop_slot.joblib@{chosen.model.version}"


def test_a_file_that_changed_since_it_was_trusted_is_refused(home: Path):
    joblib.dump(trained("forest"), home / "level4_desktop_slot.joblib")
    with pytest.raises(ModelError, match="is not listed"):
        ModelsDirectory.at(str(home)).load("desktop")


def test_trusting_twice_lists_once_and_keeps_what_others_wrote(home: Path):
    manifest = home / "models.sha256"
    manifest.write_text(f"# ours\n{'0' * 64} *old.joblib")
    total = ModelsDirectory.at(str(home)).trust(home / "level4_desktop_slot.joblib")
    ModelsDirectory.at(str(home)).trust(home / "level4_desktop_slot.joblib")
    assert manifest.read_text() == f"# ours\n{'0' * 64} *old.joblib\n{total}  level4_desktop_slot.joblib\n"
    done = subprocess.run(
        ["sha256sum", "--check", "--ignore-missing", "models.sha256"], cwd=home, check=False
    )
    assert done.returncode == 0


def test_a_manifest_of_its_own_is_the_only_one(home: Path, tmp_path: Path):
    own = ModelsDirectory.at(str(home), str(tmp_path / "sums"))
    with pytest.raises(ModelError, match="is not listed"):
        own.load("desktop")
    own.trust(home / "level4_desktop_slot.joblib")
    assert own.load("desktop").name == "desktop"


@pytest.mark.parametrize("line", ["abc  m.joblib", "0" * 64, f"{'g' * 64}  m.joblib"])
def test_a_malformed_manifest_is_named_with_its_line(home: Path, line: str):
    (home / "models.sha256").write_text(f"\n{line}\n")
    with pytest.raises(ModelError, match=r"models.sha256, line 2"):
        ModelsDirectory.at(str(home)).load("desktop")


def test_names_are_searched_in_the_old_order(home: Path):
    directory = ModelsDirectory.at(str(home))
    expected = ["level4_mobile.joblib", "level4_mobile_slot.joblib", "level4_mobile_slot_enhanced.joblib"]
    for name in expected:
        (home / name).touch()
        assert directory.file("mobile") == (home / name, None)


def test_without_a_setting_the_old_folders_are_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    directory = ModelsDirectory.at(None)
    assert directory.file("mobile") is None
    assert directory.home == Path("ml")
    (tmp_path / "level4_mobile_slot_enhanced.joblib").touch()
    for folder in ("ml", "ML"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "level4_mobile.joblib").touch()
        assert ModelsDirectory.at(None).file("mobile") == (Path(folder, "level4_mobile.joblib"), None)


def test_trained_versions_have_a_place_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ml").mkdir()
    (tmp_path / "ml" / "level4_mobile.joblib").touch()
    directory = ModelsDirectory.at(None, None, "state")
    assert directory.home == Path("state", "metrika_models")
    assert directory.file("mobile") == (Path("ml", "level4_mobile.joblib"), None)
    directory.add_version("v1", {"level4_mobile.skops": b""}, {})
    directory.promote("v1")
    assert directory.file("mobile") == (directory.home / "versions" / "v1" / "level4_mobile.skops", "v1")


def test_no_model_says_where_it_was_looked_for(tmp_path: Path):
    with pytest.raises(
        ModelError, match=rf"no mobile model in {tmp_path}/: put one there \(level4_mobile_slot_enh"
    ):
        ModelsDirectory.at(str(tmp_path)).load("mobile")


@pytest.mark.parametrize(
    ("text", "desktop", "mobile"),
    [
        (None, 0.48, 0.36),
        ('{"desktop": 0.3, "mobile": 1}', 0.3, 1),
        ('{"mobile": 0.2}', 0.5, 0.2),
        ("{}", 0.5, 0.5),
    ],
)
def test_thresholds(tmp_path: Path, text: str | None, desktop: float, mobile: float):
    if text is not None:
        (tmp_path / "level4_thresholds.json").write_text(text)
    directory = ModelsDirectory.at(str(tmp_path))
    assert (directory.threshold("desktop"), directory.threshold("mobile")) == (desktop, mobile)


@pytest.mark.parametrize("text", ["", "[0.4]", '{"desktop": "0.4"}', '{"desktop": true}', '{"desktop": 48}'])
def test_malformed_thresholds_are_named(tmp_path: Path, text: str):
    (tmp_path / "level4_thresholds.json").write_text(text)
    with pytest.raises(ModelError, match=r"level4_thresholds\.json"):
        ModelsDirectory.at(str(tmp_path)).threshold("desktop")


def test_a_version_is_used_only_when_it_is_promoted(home: Path):
    directory = ModelsDirectory.at(str(home))
    content = io.BytesIO()
    content.write(skops.io.dumps(trained("boosting")))
    files = {"level4_desktop_slot.skops": content.getvalue(), "level4_thresholds.json": b'{"desktop": 0.7}'}
    directory.add_version("v1", files, {"rows": 200})
    assert directory.load("desktop").version is None
    directory.promote("v1")
    chosen = directory.load("desktop")
    assert (chosen.version, chosen.threshold, directory.threshold("mobile")) == ("v1", 0.7, 0.36)
    assert chosen.label.startswith("v1@")
    directory.promote(None)
    assert directory.load("desktop").version is None
    assert directory.versions() == ["v1"]


@pytest.mark.parametrize("version", ["v2", "../models", "", "."])
def test_only_a_version_that_is_there_can_be_promoted(home: Path, version: str):
    with pytest.raises(ModelError, match="There is no version"):
        ModelsDirectory.at(str(home)).promote(version)


def test_a_pointer_to_nowhere_is_no_silent_return_to_the_given_models(home: Path):
    (home / "current").write_text("v9\n")
    with pytest.raises(ModelError, match="The version in use, v9"):
        ModelsDirectory.at(str(home)).load("desktop")


def test_a_version_is_written_once(home: Path):
    directory = ModelsDirectory.at(str(home))
    directory.add_version("v1", {"level4_mobile.skops": b"1"}, {})
    with pytest.raises(ModelError, match="cannot be written"):
        directory.add_version("v1", {"level4_mobile.skops": b"2"}, {})
    assert (home / "versions/v1/level4_mobile.skops").read_bytes() == b"1"
