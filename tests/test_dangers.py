"""The ban on code from data: what must be found in a syntax tree is found, by whatever name; harmless code is not."""

from __future__ import annotations

import pytest
from dangers import violations
from faults import held

DANGEROUS = [
    "import pickle",
    "import pickle as p",
    "def f():\n    from pickle import loads",
    "import _pickle",
    "import joblib",
    "import marshal",
    "from shelve import open",
    "import ctypes.util",
    "from ctypes import CDLL",
    "import runpy",
    "eval('1')",
    "run = exec",
    "import builtins\nbuiltins.eval('1')",
    "__import__('pickle')",
    "import importlib\nimportlib.import_module('pickle')",
    "import torch\ntorch.load(path)",
    "import torch\ntorch.load(path, weights_only=False)",
    "import torch\ntorch.load(path, weights_only=flag)",
    "from torch import load\nload(path)",
    "from torch import load as read\nread(path)",
    "import torch as t\nt.load(path, **options)",
    "import torch\nother = torch\nother.load(path)",
    "import torch\nread = torch.load",
    "import torch\ngetattr(torch, 'load')(path)",
    "import torch\ntorch.hub.load('someone/net', 'net')",
    "from torch import hub",
    "import torch\ntorch.serialization.add_safe_globals([dict])",
    "import numpy as np\nnp.load(path)",
    "import numpy\nnumpy.load(path, allow_pickle=True)",
    "import numpy as np\nnp.load(path, None, True)",
    "from numpy import load\nload(path)",
    "import numpy as np\nnp.save(path, rows, allow_pickle=flag)",
    "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
    "import yaml\nyaml.unsafe_load(text)",
    "from yaml import load_all",
    "import yaml\nclass Loader(yaml.FullLoader):\n    pass",
    "import os\nos.system('ls')",
    "from os import system as run",
    "import os\nshell = os\nshell.popen('ls')",
    "import os\nos.execvp('ls', ['ls'])",
    "import os\nos.spawnl(os.P_WAIT, 'ls')",
    "import subprocess\nsubprocess.run('ls', shell=True)",
    "import subprocess\nsubprocess.run('ls', shell=flag)",
    "import subprocess\nsubprocess.Popen(line, **options)",
    "from subprocess import getoutput",
    "import zipfile\nzipfile.ZipFile(path).extractall(out)",
    "import shutil\nshutil.unpack_archive(path)",
    "from os import *",
    "accelerator.load_state(folder)",
    "AutoModel.from_pretrained(name, trust_remote_code=True)",
]
HARMLESS = [
    "model.eval()",
    "network.compile(backend='inductor')",
    "import re\nre.compile(x)",
    "import torch\ntorch.load(path, weights_only=True)",
    "from torch import load\nload(path, map_location='cpu', weights_only=True)",
    "import numpy as np\nnp.load(path, mmap_mode='r', allow_pickle=False)",
    "import safetensors.torch\nsafetensors.torch.load(data)",
    "from finegan_aug.verbs import load\nload(options)",
    "import json\njson.load(stream)",
    "import yaml\nyaml.safe_load(text)",
    "import yaml\nclass Strict(yaml.SafeLoader):\n    pass",
    "import subprocess\nsubprocess.run(['ls'], shell=False)",
    "import os\nos.environ['X'] = os.path.join('a', 'b')",
    "from importlib import import_module\nimport_module(f'finegan_aug.{name}')",
    "import torch\ngetattr(torch, name)",
    "optimizer.load_state_dict(state)",
]


@pytest.mark.parametrize("source", DANGEROUS)
def test_what_is_dangerous_is_found(source: str) -> None:
    assert violations(source)


@pytest.mark.parametrize("source", HARMLESS)
def test_what_is_harmless_is_not(source: str) -> None:
    assert violations(source) == []


@pytest.mark.fault
def test_the_ban_counts() -> None:
    right = sum(bool(violations(source)) for source in DANGEROUS)
    right += sum(violations(source) == [] for source in HARMLESS)
    held("security: ways to run code from data, told from harmless ones", right, len(DANGEROUS) + len(HARMLESS))


def test_a_find_names_what_and_where() -> None:
    source = "import numpy as np\nfrom os import system as run\n\nrun('ls')\nnp.load(path)\n"
    assert violations(source) == [
        "from os import system",
        "numpy.load without allow_pickle in line 5",
        "os.system in line 4",
    ]
