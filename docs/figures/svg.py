"""A small SVG canvas: shapes in the colors of a light or a dark page."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

FONT = "-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif"
# Colors of GitHub's two themes, which the site's themes are close to.
PALETTES = {
    'light': dict(
        ink='#1f2328',
        muted='#59636e',
        line='#818b98',
        rule='#d1d9e0',
        gray='#f6f8fa',
        blue='#0969da',
        blue_fill='#ddf4ff',
        orange='#bc4c00',
        orange_fill='#fff1e5',
        green='#1a7f37',
        green_fill='#dafbe1',
    ),
    'dark': dict(
        ink='#f0f6fc',
        muted='#9198a1',
        line='#9198a1',
        rule='#3d444d',
        gray='#151b23',
        blue='#4493f8',
        blue_fill='#10294d',
        orange='#f0883e',
        orange_fill='#41220d',
        green='#3fb950',
        green_fill='#12351d',
    ),
}
ARROW_COLORS = ('line', 'blue', 'orange', 'green')


@dataclass(frozen=True)
class Box:
    """A rectangle: left, top, width and height."""

    x: float
    y: float
    w: float
    h: float

    @property
    def center(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y + self.h / 2

    @property
    def right(self) -> tuple[float, float]:
        return self.x + self.w, self.y + self.h / 2

    @property
    def left(self) -> tuple[float, float]:
        return self.x, self.y + self.h / 2

    @property
    def top(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y

    @property
    def bottom(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y + self.h


class Canvas:
    """Collects shapes and writes them as one file.

    Args:
        width: Width of the drawing.
        height: Height of the drawing.
        theme: 'light' or 'dark'.
        title: What the figure shows, for screen readers.
    """

    def __init__(self, width: int, height: int, theme: str, title: str):
        self.width, self.height, self.title = width, height, title
        self.colors = PALETTES[theme]
        self.parts: list[str] = []

    def box(self, box: Box, fill: str = 'gray', stroke: str = 'line', label: str = '', size: int = 16) -> Box:
        """Draws a rounded rectangle; `label` may have several lines, separated by newlines."""
        self.parts.append(
            f'<rect x="{box.x}" y="{box.y}" width="{box.w}" height="{box.h}" rx="7" fill="{self.colors[fill]}" '
            f'stroke="{self.colors[stroke]}" stroke-width="1.5"/>'
        )
        lines = label.split('\n') if label else []
        x, y = box.center
        top = y - (len(lines) - 1) * size * 0.625
        for i, line in enumerate(lines):
            self.text(x, top + i * size * 1.25 + size * 0.35, line, size=size)
        return box

    def text(
        self,
        x: float,
        y: float,
        text: str,
        color: str = 'ink',
        size: int = 16,
        anchor: str = 'middle',
        weight: str = 'normal',
    ) -> None:
        """Draws a line of text; what stands between underscores is italic."""
        spans = []
        for i, part in enumerate(text.split('_')):
            style = ' font-style="italic"' if i % 2 else ''
            if part:
                spans.append(f'<tspan{style}>{escape(part)}</tspan>')
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" fill="{self.colors[color]}" font-size="{size}" text-anchor="{anchor}" '
            f'font-weight="{weight}" xml:space="preserve">{"".join(spans)}</text>'
        )

    def arrow(self, *points: tuple[float, float], color: str = 'line', dashed: bool = False, head: bool = True) -> None:
        """Draws a polyline with rounded corners and, with `head`, an arrowhead at its end."""
        self._path(_rounded(points), color, dashed, head)

    def curve(self, start: tuple[float, float], end: tuple[float, float], color: str = 'line') -> None:
        """Draws an S-shaped arrow that leaves and arrives horizontally."""
        middle = (start[0] + end[0]) / 2
        self._path(
            f'M{start[0]:g} {start[1]:g} C{middle:g} {start[1]:g} {middle:g} {end[1]:g} {end[0]:g} {end[1]:g}',
            color,
            False,
            True,
        )

    def line(
        self,
        start: tuple[float, float],
        end: tuple[float, float],
        color: str = 'rule',
        width: float = 1,
        dashed: bool = False,
    ) -> None:
        """Draws a straight line."""
        dash = ' stroke-dasharray="3 4"' if dashed else ''
        self.parts.append(
            f'<line x1="{start[0]:g}" y1="{start[1]:g}" x2="{end[0]:g}" y2="{end[1]:g}" '
            f'stroke="{self.colors[color]}" stroke-width="{width}"{dash}/>'
        )

    def circle(self, x: float, y: float, r: float, fill: str, stroke: str, label: str = '') -> None:
        """Draws a circle with a label in it."""
        self.parts.append(
            f'<circle cx="{x:g}" cy="{y:g}" r="{r}" fill="{self.colors[fill]}" stroke="{self.colors[stroke]}" '
            f'stroke-width="1.5"/>'
        )
        if label:
            self.text(x, y + 6, label, color=stroke, size=19)

    def grid(self, x: float, y: float, color: str, pattern: str, cell: float = 11) -> Box:
        """Draws a feature map: rows of digits, separated by spaces, that say how dark each cell is (0 to 9)."""
        rows = pattern.split()
        for i, row in enumerate(rows):
            for j, shade in enumerate(row):
                self.parts.append(
                    f'<rect x="{x + j * cell:g}" y="{y + i * cell:g}" width="{cell - 1.5:g}" height="{cell - 1.5:g}" '
                    f'rx="2" fill="{self.colors[color]}" fill-opacity="{0.15 + int(shade) * 0.09:.2f}"/>'
                )
        return Box(x, y, len(rows[0]) * cell - 1.5, len(rows) * cell - 1.5)

    def save(self, path: Path) -> None:
        """Writes the file."""
        markers = [
            f'<marker id="{color}" viewBox="0 0 10 10" refX="8.5" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0.8L9 5L0 9.2z" fill="{self.colors[color]}"/></marker>'
            for color in ARROW_COLORS
        ]
        text = '\n'.join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
                f'font-family="{FONT}">',
                f'<title>{escape(self.title)}</title>',
                f'<defs>{"".join(markers)}</defs>',
                *self.parts,
                '</svg>',
                '',
            ]
        )
        path.write_text(text, encoding='utf-8')

    def _path(self, data: str, color: str, dashed: bool, head: bool) -> None:
        dash = ' stroke-dasharray="6 5"' if dashed else ''
        end = f' marker-end="url(#{color})"' if head else ''
        self.parts.append(f'<path d="{data}" fill="none" stroke="{self.colors[color]}" stroke-width="1.8"{dash}{end}/>')


def _rounded(points: tuple[tuple[float, float], ...], radius: float = 9) -> str:
    """A path along the points whose corners are rounded."""
    data = f'M{points[0][0]:g} {points[0][1]:g}'
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        enter, leave = _towards(corner, before, radius), _towards(corner, after, radius)
        data += f' L{enter[0]:g} {enter[1]:g} Q{corner[0]:g} {corner[1]:g} {leave[0]:g} {leave[1]:g}'
    return data + f' L{points[-1][0]:g} {points[-1][1]:g}'


def _towards(start: tuple[float, float], end: tuple[float, float], distance: float) -> tuple[float, float]:
    """The point at a distance from `start` on the way to `end`."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    share = distance / max(abs(dx) + abs(dy), distance)
    return start[0] + dx * share, start[1] + dy * share
