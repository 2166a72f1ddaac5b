"""Every number of arXiv 2212.03088 that ours are put beside, and what its text says where it gives no number.

Read off the tables and the text of the paper; curves and bars that are only drawn have no numbers here, but FIG8_RAW,
from files of the authors, whose place stands there. Known contradictions of the paper with itself are in README.md of
this folder.
"""

DATASETS = {  # data set -> the paper's name
    "mnist": "MNIST",
    "cifar10": "CIFAR-10",
    "gtsrb": "GTSRB",
    "cifar100": "CIFAR-100",
    "tiny_imagenet": "Tiny-ImageNet",
}

# Section 3: the fully supervised and the semi-supervised methods, in the order of Table 3. strategy -> the paper's name
SAL = {
    "random": "RandomSampling",
    "albl": "ALBL",
    "adversarial_bim": "AdversarialBIM",
    "bald": "BALDDropout",
    "badge": "BadgeSampling",
    "cluster_margin": "ClusterMargin",
    "coreset": "CoreSet",
    "kmeans": "KMeansSampling",
    "learning_loss": "LearningLoss",
    "least_confidence": "LeastConfidence",
    "mcadl": "MCADL",
    "core_gcn": "CoreGCN",
    "uncertain_gcn": "UncertainGCN",
    "vaal": "VAAL",
}
SSAL = {
    "waal": "WAAL",
    "ssl_consistency": "SSLConsistency",
    "ssl_diff2aug_direct": "SSLDiff2AugDirect",
    "ssl_diff2aug_kmeans": "SSLDiff2AugKmeans",
    "ssl_random": "SSLRandom",
}
METHODS = SAL | SSAL


def name(key: str) -> str:
    """The paper's name of a data set or a strategy; the name here of one that is not in the paper."""
    return (DATASETS | METHODS).get(key, key)


# Table 1: (paper, methods, semi-supervised ones, performance, robustness, cost).
STUDIES = [
    ("the paper (arXiv 2212.03088)", 19, 5, "Yes", "Yes", "Yes"),
    ("Beck et al. (2021)", 8, 0, "Yes", "Yes", "Yes"),
    ("Hu et al. (2021)", 12, 0, "Yes", "Yes", "No"),
    ("Munjal et al. (2020)", 6, 0, "Yes", "Yes", "No"),
    ("Mittal et al. (2019)", 10, 5, "Yes", "No", "No"),
    ("Chan et al. (2021)", 6, 3, "Yes", "No", "No"),
]

# Table 2: accuracy in % with all labels (MNIST LeNet, the others "ResNet-18"); the best of all test epochs.
FULL_DATA = {"mnist": 97.68, "cifar10": 92.15, "cifar100": 66.78, "gtsrb": 99.33, "tiny_imagenet": 55.81}

# Table 3: API in percentage points, columns as DATASETS; None: left empty there.
_API = {
    "random": (0.00, 0.00, 0.00, 0.00, 0.00),
    "albl": (-0.15, 1.58, 0.34, 2.13, 0.48),
    "adversarial_bim": (1.44, 0.25, -0.24, 0.58, -6.40),
    "bald": (1.18, 1.48, -0.04, 1.55, -0.34),
    "badge": (1.84, 1.89, 0.27, 1.72, None),
    "cluster_margin": (1.76, 0.28, 0.23, 1.47, None),
    "coreset": (-1.15, 0.95, 0.26, 2.07, 0.57),
    "kmeans": (-0.22, 0.17, 0.20, -0.27, None),
    "learning_loss": (-2.32, -2.38, -0.94, -1.31, 0.05),
    "least_confidence": (1.40, 1.95, 0.34, 2.21, 0.17),
    "mcadl": (0.57, -0.50, 0.03, -1.27, -1.51),
    "core_gcn": (1.21, 1.16, -8.52, 1.35, -5.19),
    "uncertain_gcn": (-0.85, 0.14, -8.77, -0.07, -5.37),
    "vaal": (-0.34, -0.49, -24.79, -2.01, -0.32),
    "waal": (3.00, 2.05, 0.21, -0.12, -3.64),
    "ssl_consistency": (3.39, 5.83, 1.19, 8.099, 7.65),
    "ssl_diff2aug_direct": (3.49, 5.78, 1.19, 8.988, None),
    "ssl_diff2aug_kmeans": (3.50, 5.74, 1.17, 8.913, 7.68),
    "ssl_random": (1.68, 4.57, 1.11, 8.014, 7.56),
}
API: dict[str, dict[str, float | None]] = {
    method: dict(zip(DATASETS, row, strict=True)) for method, row in _API.items()
}

# Table 4: mean cost of a class of methods, divided by RandomSampling's.
COST = {
    "SAL": dict(zip(DATASETS, (3.13, 2.01, 1.63, 2.43, 3.81), strict=True)),
    "SSAL": dict(zip(DATASETS, (11.95, 6.03, 4.05, 3.89, 7.26), strict=True)),
}

# Table 5: data set -> (training images per class, API of SSLDiff2AugDirect / API of SSLRandom). CIFAR-100 is not in it.
IMPROVEMENT = {"mnist": (6000, 2.07), "cifar10": (5000, 1.26), "gtsrb": (911, 1.07), "tiny_imagenet": (500, 1.06)}

# Table 6 (appendix A.1): what the methods' own papers use on CIFAR-10.
# (methods, start, step, learning rate, epochs, accuracy is that of, optimiser)
OWN_PAPERS = [
    (("badge",), "0.2%", "0.2%/2%/20%", "1e-3", "until 99% training accuracy", "after training", "Adam"),
    (("cluster_margin",), "10%", "10%", "1e-3", "-", "-", "batch SGD"),
    (("coreset",), "10%", "10%", "1e-3", "-", "-", "RMSProp"),
    (("kmeans",), "10%", "10%", "1e-3", "-", "-", "RMSProp"),
    (("learning_loss",), "2%", "2%", "1e-1, 1e-2", "200", "after training", "SGD"),
    (("mcadl",), "4%", "128 images", "-", "-", "-", "Adam"),
    (("waal",), "2%", "2%", "1e-2", "80", "after training", "SGD"),
    (("core_gcn", "uncertain_gcn"), "2%", "2%", "1e-1, 1e-2", "200", "-", "SGD"),
    ((), "0.4%", "0.8%", "-", "150", "-", "RMSprop"),  # "Ensemble", none of the 19
    (("vaal",), "10%", "5%", "1e-2", "100", "best on a validation set", "SGD"),
]

# What the text says of figures whose values it does not give. Figure -> sentences.
SAYS = {
    "fig2": "SSLRandom's picks are the most diverse, the least uncertain and the least inconsistent; the others are "
    "the better for their uncertainty (section 4.1).",
    "fig3": "SSLRandom's picks are spread over all samples, those of the others lie near the decision boundary "
    "(section 4.1).",
    "fig4": "The later the start, the lower the final accuracy: on MNIST about 2 points from a start at 2 % to one at "
    "10 %, and best from 0.5 % (section 5.1).",
    "fig5": "The gap between SSLDiff2AugDirect and SSLRandom grows with the amount of unlabelled data (section 5.2).",
    "fig6": "SSLDiff2AugDirect and SSLConsistency get slightly worse with larger queries, and stay far above SSLRandom "
    "(section 5.3).",
    "fig7": "The semi-supervised methods are above the supervised ones on every data set (A.2).",
    "fig8": "(a) The start budget changes little. (b) Accuracy falls with larger queries (A.3).",
}
# Raw runs of the paper's authors for Figure 8(a), CIFAR-10, accuracy in % at 40 % labels, seeds 1 to 5. From their
# repository github.com/cure-lab/deep-active-learning at 0c86c96, where each is the last line of its seed in
# save/LeastConfidence_rob/result_s2.csv and save/BALDDropout_rob/result_s1.csv. (strategy, start in %) -> accuracies
FIG8_RAW = {
    ("least_confidence", 2): (90.39, 91.10, 90.53, 90.82, 90.01),
    ("bald", 1): (89.85, 90.00, 89.71, 89.87, 89.79),
}
