"""How Sphinx builds these pages: ``make docs``."""

from __future__ import annotations

import sys
from pathlib import Path

from influxrelay import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "influxrelay"
author = "The influxrelay authors"
version = release = __version__
extensions = ["command_reference", "config_reference", "sphinx_copybutton"]
root_doc = "index"
nitpicky = True
highlight_language = "none"  # what is not marked as code of a language is a shell session or output
copybutton_prompt_text = "$ "
copybutton_exclude = ".linenos, .go"
html_theme = "furo"
html_title = "influxrelay"
html_static_path = ["_static"]
html_css_files = ["influxrelay.css"]
html_favicon = "images/favicon.svg"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1d4ed8", "color-brand-content": "#1d4ed8"},
    "dark_css_variables": {"color-brand-primary": "#8ab4ff", "color-brand-content": "#8ab4ff"},
}
