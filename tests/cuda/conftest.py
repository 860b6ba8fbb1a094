"""Skip the collection of these tests on machines without a GPU."""

import torch

collect_ignore_glob = [] if torch.cuda.is_available() else ["test_*.py"]
