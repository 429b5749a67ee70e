"""What papers claim of the accuracy of their methods after the same number of samples as dense SGD.

The papers trained other models on other data. The study ``methods`` tests each claim where it trains.
"""

from __future__ import annotations

from typing import NamedTuple


class Claim(NamedTuple):
    """A claim of a paper: with these splits of the data, `method` ends no lower than `other`.

    `words` names the paper and says what it claims. `skipped` is the share of uploads that workers skip at least.
    """

    method: str
    other: str
    words: str
    splits: tuple[str, ...] = ("iid",)
    skipped: float = 0.0


CLAIMS = (
    Claim("gtopk", "dense", "gTop-k (Shi et al. 2019): nearly the convergence of S-SGD with dense gradients"),
    Claim("dgc", "dense", "DGC (Lin et al. 2018): no loss of accuracy"),
    Claim("scalecom", "dense", "ScaleCom (Chen et al. 2020): no significant loss of accuracy"),
    Claim("oktopk", "dense", "Ok-Topk (Li and Hoefler 2022): a model accuracy similar to that of a dense all-reduce"),
    Claim("qsgd", "dense", "QSGD (Alistarh et al. 2017): the full accuracy"),
    Claim("terngrad", "dense", "TernGrad (Wen et al. 2017): a loss of accuracy below 2 % on average"),
    Claim("powersgd", "dense", "PowerSGD (Vogels et al. 2019): test performance on par with SGD"),
    Claim("signsgd", "dense", "signSGD (Bernstein et al. 2018): convergence at the level of SGD"),
    Claim("ef-signsgd", "dense", "EF-signSGD (Karimireddy et al. 2019): the rate of convergence of SGD"),
    Claim("ef-signsgd", "signsgd", "EF-signSGD (Karimireddy et al. 2019): better than signSGD", ("iid", "by-class")),
    Claim("lasg-wk2", "dense", "LASG (Chen et al. 2020): rates of convergence comparable to SGD"),
    Claim("lasg-wk2", "dense", "LASG (Chen et al. 2020): a tenth of SGD's communication, typically", skipped=0.9),
    Claim("sasg", "dense", "SASG (Deng et al. 2021): the accuracy of SGD with fewer uploads"),
    Claim("local-sgd", "dense", "local SGD (Stich 2019): the rate of mini-batch SGD by evaluated gradients"),
    Claim("post-local-sgd", "dense", "post-local SGD (Lin et al. 2020): better generalisation than large mini-batches"),
    Claim("diloco", "dense", "DiLoCo (Douillard et al. 2023): as good as fully synchronous optimisation"),
    Claim("diloco", "dense", "DiLoCo (Douillard et al. 2023): robust to the distribution of data", ("by-class",)),
    Claim("streaming-diloco", "diloco", "Streaming DiLoCo (Douillard et al. 2025): the quality of DiLoCo"),
)
