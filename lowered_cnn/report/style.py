"""How the report looks: one palette, which is safe for the colour-blind, one type scale and one scale of distances."""

from typing import Any

LIGHT = {
    "ground": "#f4f5f7", "card": "#ffffff", "ink": "#1c2127", "muted": "#59636e", "line": "#dde1e6",
    "blue": "#1f6cb0", "orange": "#c25a05", "wash": "#d5e5f4",
}  # fmt: skip
DARK = {
    "ground": "#111418", "card": "#1a1f25", "ink": "#e7eaee", "muted": "#9ba6b2", "line": "#353d46",
    "blue": "#6bb1ef", "orange": "#f2a153", "wash": "#1f3a54",
}  # fmt: skip
"""Colours by name; charts are drawn in the light ones, and in a page their names replace them."""

SETTINGS: dict[str, Any] = {
    "axes.edgecolor": LIGHT["line"],
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": LIGHT["muted"],
    "axes.labelsize": 10,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": LIGHT["ink"],
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "figure.dpi": 72,
    "font.size": 10,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.8,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "legend.labelcolor": LIGHT["muted"],
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
    "text.color": LIGHT["ink"],
    "text.parse_math": False,
    "xtick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["muted"],
    "xtick.labelsize": 9,
    "ytick.color": LIGHT["line"],
    "ytick.labelcolor": LIGHT["muted"],
    "ytick.labelsize": 9,
}
"""What matplotlib draws with; at 72 dpi, a point is a unit of the SVG and a pixel of the page."""


def _colours(palette: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in palette.items())


CSS = (
    f"""
:root {{ color-scheme: light dark; {_colours(LIGHT)}
  --small: .8125rem; --text: 1rem; --large: 1.25rem; --huge: 1.75rem;
  --s1: .25rem; --s2: .5rem; --s3: 1rem; --s4: 1.5rem; --s5: 2.5rem; }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_colours(DARK)} }} }}
"""
    + """
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: var(--s3); }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: var(--text)/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.page { max-width: 84rem; margin: 0 auto; padding: var(--s4) var(--s3) var(--s5); }
header { margin-bottom: var(--s4); }
h1 { font-size: var(--huge); line-height: 1.2; margin: 0 0 var(--s3); overflow-wrap: anywhere; }
h2 { font-size: var(--large); line-height: 1.3; margin: 0 0 var(--s2); }
h3 { font-size: var(--text); margin: var(--s4) 0 var(--s2); overflow-wrap: anywhere; }
p { margin: 0 0 var(--s3); max-width: 44rem; }
.note, figcaption, nav, th, .legend, dt { color: var(--muted); font-size: var(--small); }
nav ul { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: var(--s1) var(--s3); }
nav a { color: inherit; text-decoration: none; display: block; padding: var(--s1) 0; }
nav a:hover, nav a:focus-visible { color: var(--blue); text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--line); border-radius: var(--s2); padding: var(--s4);
  margin-top: var(--s4); min-width: 0; }
.key { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: var(--s3); margin: 0; }
.key div { border-left: 3px solid var(--blue); padding-left: var(--s2); }
.key dd { margin: 0; font-size: var(--large); font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.facts div { display: contents; }
.facts { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: var(--s1) var(--s3); margin: 0; }
.facts dd { margin: 0; font-size: var(--small); overflow-wrap: anywhere; }
figure { margin: 0; min-width: 0; }
figcaption { margin-top: var(--s1); overflow-wrap: anywhere; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: var(--s4); }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit; }
.chart { overflow-x: auto; }
.table { overflow: auto; max-height: 36rem; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(6.5rem, 1fr)); gap: var(--s3); }
.groups { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr));
  gap: var(--s4) var(--s5); }
.chart + .groups, .table + p { margin-top: var(--s3); }
.groups > div { display: grid; grid-template-columns: 1fr 1fr; gap: var(--s3); align-items: start; }
img { display: block; width: 100%; border: 1px solid var(--line); image-rendering: pixelated; }
.legend { display: flex; align-items: center; gap: var(--s2); margin-top: var(--s1);
  font-variant-numeric: tabular-nums; }
.legend i { flex: 1; height: var(--s2); border-radius: var(--s1); }
table { border-collapse: collapse; font-size: var(--small); font-variant-numeric: tabular-nums; width: 100%; }
th { font-weight: 600; text-align: right; background: var(--card); position: sticky; top: 0; }
th, td { padding: var(--s1) var(--s2); border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.bar { background: linear-gradient(var(--wash) 0 0) left / var(--share) 100% no-repeat; }
tfoot td { font-weight: 600; border-bottom: 0; }
details { margin-top: var(--s3); }
summary { cursor: pointer; color: var(--blue); font-size: var(--small); }
pre { font: var(--small)/1.4 ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-x: auto;
  margin: var(--s2) 0 0; }
@media (min-width: 72rem) {
  .page { display: grid; grid-template-columns: 11rem minmax(0, 1fr); column-gap: var(--s5); }
  header { grid-column: 1 / -1; }
  nav { position: sticky; top: var(--s4); align-self: start; margin-top: var(--s4); }
  nav ul { display: block; }
}
@media (max-width: 30rem) { section { padding: var(--s3); } th, td { padding: var(--s1); } }
@media print { nav { display: none; } section { break-inside: avoid; } .table { max-height: none; }
  .bar, .legend i { print-color-adjust: exact; } }
"""
)
