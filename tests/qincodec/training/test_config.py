"""The configuration: the paper's values, and messages for wrong ones."""

import math

import pytest
import yaml

from qincodec.architectures import SIZES
from qincodec.core.errors import UserError
from qincodec.training.config import TrainingConfig, load_config, parse_config, shipped


@pytest.mark.parametrize("latent_dim", [16, 32, 64])
def test_the_papers_configurations(latent_dim):
    """Values of the paper's section V-A and, where it is silent, of DAC."""
    config = load_config(f"paper-d{latent_dim}.yaml")
    assert config.shape == SIZES[f"paper-d{latent_dim}"]
    assert config.stage1.steps == 1_000_000
    assert (config.data.crop_s, config.data.batch_size) == (1.0, 240)
    assert (config.losses.mel, config.losses.adversarial, config.losses.feature_matching) == (15, 1, 2)
    assert (config.optimizer.lr, config.optimizer.betas, config.optimizer.weight_decay) == (
        2e-4,
        (0.5, 0.9),
        1e-3,
    )
    assert (config.optimizer.clip_discriminator, config.optimizer.clip_generator) == (10, 1000)
    assert config.stage2.kind == "qinco2"
    assert config.stage2.k_means == "minibatch"
    assert config.stage3.lr is None
    # One rate: the number of codebooks nearest to 16 kbps, by the paper's bitrate = N log2 K F.
    per_codebook = math.log2(1024) * 44_100 / 256
    assert config.stage3.codebooks == (round(16_000 / per_codebook),)
    # What is ours is off.
    assert config.losses.waveform == config.stage1.latent_noise == config.stage1.ema == 0
    assert config.discriminators.start_step == 0
    assert config.discriminators.width == 1


def test_the_papers_design_in_small():
    """Sizes and lengths are less than the paper's; losses, optimizer, quantizer and fine-tuning are its."""
    mini, paper = load_config("paper-d32-mini"), load_config("paper-d32")
    kept = ("latent_dim", "num_layers", "sample_rate", "hop_length")
    assert [getattr(mini.shape, name) for name in kept] == [getattr(paper.shape, name) for name in kept]
    assert type(mini.shape) is type(paper.shape)
    assert mini.losses == paper.losses
    optimizer = {"lr", "warmup", "decay"}
    assert mini.optimizer.model_dump(exclude=optimizer) == paper.optimizer.model_dump(exclude=optimizer)
    assert mini.stage1.model_copy(update={"steps": paper.stage1.steps}) == paper.stage1
    shorter = {"steps", "search"}
    assert mini.stage3.model_dump(exclude=shorter) == paper.stage3.model_dump(exclude=shorter)
    assert mini.stage2.kind == paper.stage2.kind


def test_every_shipped_configuration_loads():
    assert {"paper-d16", "paper-d32", "paper-d64", "paper-d32-mini", "small"} <= set(shipped())
    for name in shipped():
        load_config(name)


def test_a_decoder_for_every_rate_is_an_option():
    config = load_config("paper-d32", {"stage3.codebooks": "[2, 5, 9, 14]"})
    assert config.stage3.codebooks == (2, 5, 9, 14)


def test_learning_rate_by_the_formula():
    optimizer = TrainingConfig().optimizer
    gamma = math.exp(-4 / 1000)
    for step in (0, 1, 500, 999):
        expected = (1 - 0.999 ** (step + 1)) * 2e-4 * gamma**step
        assert optimizer.rate(step, 1000) == pytest.approx(expected)
    # Stage 3 begins where stage 1 ended.
    assert optimizer.rate(1000, 1000, warm=False) == pytest.approx(2e-4 * math.exp(-4))


def test_crops_are_whole_frames():
    assert TrainingConfig().crop_samples % 256 == 0
    assert abs(TrainingConfig().crop_samples - 44_100) < 256


def test_changes_from_the_command_line(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("autoencoder: tiny\nstage1: {steps: 5}\n")
    config = load_config(path, {"stage1.steps": "7", "optimizer.lr": "1e-3", "stage3.codebooks": "[3]"})
    assert (config.stage1.steps, config.optimizer.lr, config.stage3.codebooks) == (7, 1e-3, (3,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer: {learning_rate: 1}", "unknown key 'optimizer.learning_rate'"),
        ("? " + "x" * 5000 + "\n: 1", r"unknown key 'x{200}\.\.\.'"),
        ("losses: {mels: 1}", "did you mean mel"),
        ("stage4: {}", "did you mean stage"),
        ("data: {crop_s: -1}", "data.crop_s"),
        ("data: {batch_size: many}", "data.batch_size"),
        ("autoencoder: huge", "unknown autoencoder size 'huge'"),
        ("autoencoder: {dim: 0}", "dim must be a whole number from 1 to 8192, got 0"),
        (
            "autoencoder: {num_layers: 1000000000}",
            "num_layers must be a whole number from 1 to 128, got 1000000000",
        ),
        (
            "autoencoder: {dim: 8192, intermediate_dim: 32768, num_layers: 128}",
            "weights, 1073741824 are allowed",
        ),
        ("stage2: {num_codebooks: 1000000000}", "stage2.num_codebooks.*1024, got 1000000000"),
        ("data: {workers: 1000000000}", "data.workers.*512, got 1000000000"),
        ("stage1: {steps: 1000000000}", "stage1.steps.*999999999"),
        (
            "stage3: {search: {beam: 1000000000}}",
            "beam must be a whole number from 1 to 4096, got 1000000000",
        ),
        ("stage3: {search: {width: 1}}", "bad.yaml: search does not fit.*candidates, beam"),
        ("stage2: {training: {epochs: 0}}", "epochs must be a whole number from 1"),
        ("stage2: {training: {epoch: 1}}", "stage2.training does not fit.*epoch"),
        ("optimizer: {lr: .inf}", "optimizer.lr.*finite"),
        ("seed: 2024-13-45", "cannot be read: month must be"),
        ("[" * 5000, "cannot be read"),
        ("seed: [" + "1, " * 9000 + "]", r"seed.*\.\.\."),
        ("stage3: {codebooks: [15]}", "must be 1 to 14"),
        ("stage3: {codebooks: []}", "must be 1 to 14"),
        ("run: {precision: int8}", "run.precision"),
        ("[1, 2]", "must be a mapping"),
        ("a: [", "cannot be read"),
    ],
)
def test_wrong_values_are_named(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message.replace("[", r"\[")) as caught:
        load_config(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_change_without_a_valid_value_is_reported(tmp_path):
    """It once left the configuration as it was, without a word."""
    with pytest.raises(UserError, match="--set seed=2024-13-45 is not a YAML value"):
        load_config("small", {"seed": "2024-13-45"})


def test_no_such_configuration():
    with pytest.raises(UserError, match="paper-d32"):
        load_config("papr-d32")


def test_what_is_written_reads_back():
    config = load_config("small")
    again = parse_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json"))), "again")
    assert again == config
