"""The loader of plain YAML: libyaml's where PyYAML was built with it, which is ten times as fast."""

from typing import Any

import yaml

LOADER: Any = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
