"""Numbers of other sources, as a user asks for them."""

import pytest
from typer.testing import CliRunner

from bench.cli import app, run
from bench.cli.convert import convert_beta, convert_lr
from trainers.errors import UserError


def test_beta_of_diffusers_script_is_twice_as_large_here() -> None:
    lines = convert_beta(2500, "diffusers sd script", "4x64x64")
    assert lines[0].startswith("objective.beta: 5000 ")
    # Sums over 4 x 64 x 64 elements: 5000 / 16384.
    assert any(line.split()[0] == "0.305176" and "eq. 46" in line for line in lines)


def test_scaled_rate_of_the_public_launcher() -> None:
    assert convert_lr(1e-8, 2048).startswith("optimizer.lr: 2.048e-05 ")


def test_the_beta_of_another_objective_is_told_apart() -> None:
    """Only sources of that objective are beside it."""
    lines = convert_beta(0.1, "mapo code", "4x64x64")
    assert lines[0].startswith("objective.weight: 0.1   # of mapo")
    assert len(lines) == 2
    assert not any("kto" in line for line in convert_beta(1.0, "diffusion-dpo code", "4x64x64"))


def test_rates_that_are_not_scaled() -> None:
    assert convert_lr(1e-7, None, "diffusion-kto code").startswith("optimizer.lr: 1e-07   # as it")
    with pytest.raises(UserError, match="whether thermo-dpo paper scales its rate by the batch"):
        convert_lr(1e-5, 128, "thermo-dpo paper")


def test_on_the_command_line() -> None:
    done = CliRunner().invoke(
        app, ["convert", "--beta", "5000", "--lr", "1e-8", "--batch-size", "64"]
    )
    assert done.exit_code == 0
    assert "objective.beta: 5000" in done.stdout and "optimizer.lr: 6.4e-07" in done.stdout


@pytest.mark.parametrize(
    "latent", ["64", "4x64", "4x0x64", "axbxc", "4x64x-1", "4x64x64x", "4x٦x64", "1e9x1x1", ""]
)
def test_a_shape_that_is_none(latent: str) -> None:
    with pytest.raises(UserError, match="expected a shape such as 4x64x64"):
        convert_beta(1.0, "diffusion-dpo code", latent)


def test_what_is_missing() -> None:
    with pytest.raises(UserError, match="needs --batch-size"):
        convert_lr(1e-8, None)
    with pytest.raises(UserError, match="known are diffusion-dpo code"):
        convert_beta(1.0, "nobody", "4x64x64")


@pytest.mark.parametrize("value", ["nan", "-nan", "inf", "-inf", "-1", "0", "-0.0", "1e-400"])
def test_what_is_no_positive_number(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a beta or a rate, whatever the conversion would have made of it."""
    for options in (["--beta", value], ["--lr", value, "--batch-size", "64"]):
        assert run(["convert", *options]) == 1
        error = capsys.readouterr().err
        assert options[0] in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "options",
    [
        ["--beta", "1e308", "--source", "diffusion-dpo pseudo-code"],
        ["--beta", "1e-323"],
        ["--lr", "1e308", "--batch-size", "64"],
        ["--lr", "1e-5", "--batch-size", "0"],
        ["--lr", "1e-5", "--batch-size", "-1"],
        ["--lr", "1e-5", "--batch-size", "9" * 400],
        ["--beta", "x"],
        ["--lr", "", "--batch-size", "1"],
    ],
)
def test_what_is_none_in_another_convention(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["convert", *options]) == 1
    assert capsys.readouterr().err.startswith("bench: ")
