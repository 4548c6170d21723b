"""How related is a source to the target? One metric a file; all work alone on numpy arrays or torch tensors.

Every metric takes the outputs of one source for the labeled images, and the labels; it returns a float, higher is
better, or raises `SimilarityError`. `rank_sources` applies metrics to the cached outputs of many sources.
"""

from potstill.similarity._baselines import BASELINES
from potstill.similarity._cka import cka
from potstill.similarity._energy import energy, free_energy
from potstill.similarity._ensemble import combine_scores, ensemble
from potstill.similarity._gbc import gbc
from potstill.similarity._hscore import hscore
from potstill.similarity._kite import kite
from potstill.similarity._knn import knn
from potstill.similarity._leep import leep
from potstill.similarity._logme import logme
from potstill.similarity._metric import Metric, Ranker
from potstill.similarity._nce import nce
from potstill.similarity._ncti import ncti
from potstill.similarity._nleep import nleep
from potstill.similarity._parc import parc
from potstill.similarity._probe import probe
from potstill.similarity._ranking import Given, rank_sources
from potstill.similarity._registry import AUTO, AUTO_BESIDE, RANKERS, SIMILARITIES, AnyMetric, find_metric
from potstill.similarity._rsa import rsa
from potstill.similarity._sfda import sfda
from potstill.similarity._stack import stack
from potstill.similarity._transrate import transrate

__all__ = [
    "AUTO",
    "AUTO_BESIDE",
    "BASELINES",
    "RANKERS",
    "SIMILARITIES",
    "AnyMetric",
    "Given",
    "Metric",
    "Ranker",
    "cka",
    "combine_scores",
    "energy",
    "ensemble",
    "find_metric",
    "free_energy",
    "gbc",
    "hscore",
    "kite",
    "knn",
    "leep",
    "logme",
    "nce",
    "ncti",
    "nleep",
    "parc",
    "probe",
    "rank_sources",
    "rsa",
    "sfda",
    "stack",
    "transrate",
]
