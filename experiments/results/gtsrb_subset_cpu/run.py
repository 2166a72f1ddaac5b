"""GCN strategies on class-sorted GTSRB, the graph made of the first unlabelled images of the pool or of random ones.

python experiments/results/gtsrb_subset_cpu/run.py gtsrb.npz OUT      # keys as of npz:PATH
"""

import sys

import numpy as np

import jaxdal

source, out = sys.argv[1:]
with np.load(source) as file:
    given = {name: file[name] for name in file.files}
order = np.argsort(given["train_labels"], kind="stable")
train, test = (given[name][:, 2:30, 2:30] for name in ("train_images", "test_images"))  # LeNet takes 28x28
images = jaxdal.from_arrays(
    train[order], given["train_labels"][order], test, given["test_labels"],
    num_classes=43, class_names=list(given["class_names"]),
)  # fmt: skip
names = ["random"]
for name in ("core_gcn", "uncertain_gcn"):
    names += [name, f"{name}(subset='first')"]
jaxdal.run_together(
    images, names, workdirs=out, model="lenet", batch=128, learning_rate=0.03, epochs=10, seeds=(0, 1),
    n_start="10%", n_query="5%", n_end="30%", mirror=False, crop=0,
)  # fmt: skip
