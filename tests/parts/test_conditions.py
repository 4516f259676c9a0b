import numpy as np
import pytest
import torch
from torch import Tensor

from ser_strategies.parts.conditions import Conditions, Known, Told, gender_codes

SIZE, WIDTH = 6, 5
GENDERS = gender_codes(("female", "unknown", "male", "female"))
POOLED = torch.randn(4, SIZE, generator=torch.Generator().manual_seed(0))
SENTENCES = 30 * torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1)) + 7
SENTENCES[1] = torch.nan
KNOWN = Known(GENDERS, SENTENCES)


def made(**options: object) -> Conditions:
    """Both conditions, with weights that are far from where they begin."""
    torch.manual_seed(0)
    chosen = {"gender": True, "gender_size": 3, "text_width": WIDTH, "text_size": 2, "withheld": 0.0}
    conditions = Conditions(SIZE, **(chosen | options))
    for parameter in conditions.parameters():
        parameter.data = torch.randn_like(parameter)
    return conditions


def reference(conditions: Conditions, genders: list[int], texts: list[bool]) -> np.ndarray:
    """The same in numpy, utterance by utterance."""
    p = {name: value.detach().double().numpy() for name, value in conditions.named_parameters()}
    rows = []
    for pooled, gender, sentence, told in zip(
        POOLED.double().numpy(), genders, SENTENCES.double().numpy(), texts, strict=True
    ):
        entered = p["gender.weight"][gender]
        row = [pooled, entered]
        if conditions.film:
            row = [(1 + entered[:SIZE]) * pooled + entered[SIZE:]]
        if told:
            level = (sentence - sentence.mean()) / np.sqrt(sentence.var() + 1e-5)
            row.append(p["project.weight"] @ level + p["project.bias"])
        else:
            row.append(p["no_text"])
        rows.append(np.concatenate(row))
    return np.stack(rows)


@pytest.mark.parametrize("enters", ["joined", "film"])
@pytest.mark.parametrize("told", [Told("given", True), Told("unknown", True), Told("given", False)])
def test_what_is_known_is_joined_as_numpy_would(enters, told):
    conditions = made(enters=enters).eval()
    genders = [0, 2, 1, 0] if told.gender == "given" else [2] * 4
    texts = [told.text and row != 1 for row in range(4)]
    expected = reference(conditions, genders, texts)
    assert expected.shape == (4, conditions.size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = conditions(POOLED, KNOWN, told)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-5)


def test_a_predicted_gender_is_the_likelier_one_whatever_is_known():
    conditions = made().eval()
    likelier = conditions.gender_logits(POOLED).argmax(-1).tolist()
    assert set(likelier) == {0, 1}
    found = conditions(POOLED, Known(), Told("predicted", False))
    np.testing.assert_allclose(found.detach(), reference(conditions, likelier, [False] * 4), atol=1e-5)


def test_film_begins_as_nothing():
    conditions = Conditions(SIZE, gender=True, enters="film").eval()
    assert torch.equal(conditions(POOLED, KNOWN, Told("given")), POOLED)


def test_training_withholds_each_condition_from_a_share_drawn_from_the_generator_of_the_step():
    conditions, many = made(withheld=0.3), 4000
    pooled, known = POOLED[:1].repeat(many, 1), Known(GENDERS[:1].repeat(many), SENTENCES[:1].repeat(many, 1))

    def withheld(seed: int) -> Tensor:
        torch.manual_seed(seed)
        # The setting is of tests: in training all that is known is told, but for what is withheld.
        found = conditions(pooled, known, Told("unknown", False))
        unknown = (found[:, SIZE : SIZE + 3] == conditions.gender.weight[2]).all(1)
        return torch.stack([unknown, (found[:, -2:] == conditions.no_text).all(1)])

    drawn = withheld(5)
    assert drawn.float().mean(1).tolist() == pytest.approx([0.3, 0.3], abs=0.03)
    both = (drawn[0] & drawn[1]).float().mean().item()
    assert both == pytest.approx(0.09, abs=0.02), "each by itself"
    assert torch.equal(withheld(5), drawn)
    assert not torch.equal(withheld(6), drawn)
    conditions.eval()
    assert not (conditions(pooled, known, Told("given", True))[:, -2:] == conditions.no_text).any()


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_the_gender_head_hands_on_its_share_of_the_gradient(weight):
    conditions, pooled = made(gender_weight=weight), POOLED.clone().requires_grad_()
    logits = conditions.gender_logits(pooled)
    chances = torch.tensor(np.exp(logits.detach().numpy()))
    chances /= chances.sum(1, keepdim=True)
    loss = conditions.gender_loss(logits, GENDERS)
    assert loss.item() == pytest.approx(-chances[[0, 2, 3], [0, 1, 0]].log().mean().item(), rel=1e-5)
    loss.backward()
    wrong = (chances - torch.eye(2)[[0, 0, 1, 0]]) / 3
    wrong[1] = 0
    torch.testing.assert_close(pooled.grad, weight * wrong @ conditions.gender_head.weight)
    torch.testing.assert_close(conditions.gender_head.weight.grad, wrong.T @ POOLED)


@pytest.mark.parametrize("known", [Known(), Known(torch.full((4,), 2), torch.full((4, WIDTH), torch.nan))])
def test_a_batch_of_which_nothing_is_known_gives_finite_gradients_to_all(known):
    conditions = made()
    found = conditions(POOLED, known, Told()).square().sum()
    (found + conditions.gender_loss(conditions.gender_logits(POOLED), known.genders)).backward()
    assert all(each.grad is not None and each.grad.isfinite().all() for each in conditions.parameters())


def test_a_gender_that_is_no_word_for_one_is_named():
    with pytest.raises(ValueError, match="one of female, male, unknown, got 'f'"):
        gender_codes(("female", "f"))
