"""Where readers of a model card find this project."""

from typing import Optional

# The address of the public repository. Cards link to it once there is one.
REPOSITORY: Optional[str] = None
INSTALL = 'pip install timm_alfa'
