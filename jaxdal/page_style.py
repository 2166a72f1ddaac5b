"""Style sheet and script of the page: readable on a screen, on a telephone and on paper."""

STYLE = """
:root { color-scheme: light; --line: #d9d9d9; --dim: #595959; --better: #0072b2; --worse: #b34700; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1c1c1c; background: #fff; margin: 0 auto; padding: 1.2rem;
  max-width: 80rem; }
h1 { font-size: 1.6rem; margin: 0 0 .4rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .6rem; border-top: 1px solid var(--line); padding-top: 1rem;
  overflow-wrap: anywhere; }
h3 { font-size: 1.02rem; margin: 1.8rem 0 .4rem; }
p, li, dd { max-width: 48rem; overflow-wrap: anywhere; }
ul { padding-left: 1.2rem; margin: .4rem 0; }
dd { margin: 0 0 .6rem; }
.dim, figcaption, .notes { color: var(--dim); font-size: .87rem; }

.scroll { overflow-x: auto; margin: .5rem 0; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .3rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #ececec; }
th { font-weight: 600; }
thead th { border-bottom: 1px solid #777; vertical-align: bottom; white-space: normal; }
th button { all: unset; cursor: pointer; }
th button:focus-visible { outline: 2px solid var(--better); }
th[aria-sort=ascending] button::after { content: " ▲"; }
th[aria-sort=descending] button::after { content: " ▼"; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; white-space: normal;
  overflow-wrap: break-word; min-width: 9rem; max-width: 20rem; }
table.words td, table.words thead th { text-align: left; white-space: normal; vertical-align: top;
  overflow-wrap: anywhere; min-width: 4.5rem; }
table.words td:first-child { white-space: nowrap; }
table.words td:nth-child(n+2) { min-width: 6rem; }
td.best { font-weight: 700; }
td.gap { color: var(--worse); font-weight: 600; }
td.better { color: var(--better); font-weight: 600; }
td.worse { color: var(--worse); font-weight: 600; }
td.better::before { content: "▲ "; }
td.worse::before { content: "▼ "; }

.alarm { border-left: 4px solid var(--worse); padding: .3rem .9rem; margin: 1rem 0; background: #fdf5f0; }
.alarm th:first-child, .alarm td:first-child { background: #fdf5f0; }
.alarm td:nth-child(4) { min-width: 11rem; }
.well { border-left: 4px solid var(--better); padding: .4rem .9rem; background: #f1f7fb; margin: 1rem 0; }

figure { margin: 0; }
img { width: 100%; height: auto; display: block; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(215px, 1fr)); gap: 1.1rem .9rem;
  margin-bottom: 1.2rem; }
.panels figcaption { color: #1c1c1c; overflow-wrap: anywhere; }
.wide { margin: 1rem 0; }
.wide img { min-width: 520px; max-width: 760px; }
table.heat td { text-align: center; padding: .2rem .35rem; }
table.heat tbody th { text-align: left; }
table.heat thead th:not(:first-child) { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left;
  padding: .4rem .1rem; border: 0; overflow-wrap: anywhere; max-height: 15rem; }
table.heat thead th:first-child { border: 0; }

@media (max-width: 40rem) {
  body { padding: .8rem; }
  th, td { padding: .25rem .4rem; }
  h1 { font-size: 1.3rem; }
  .alarm { padding: .3rem .5rem; }
  .panels { grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); }
}
@media print {
  @page { size: landscape; margin: 12mm; }
  body { max-width: none; padding: 0; font-size: 10px; }
  .scroll { overflow: visible; }
  h2, h3 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  table { font-size: 8px; }
  th, td { padding: .12rem .25rem; }
  th:first-child, td:first-child { position: static; }
  td { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  .panels { grid-template-columns: repeat(5, 1fr); }
}
"""

# Headings become buttons that sort their column; without a script, the tables are as they were written.
SCRIPT = """
const number = (text) => parseFloat(text.replace(/[▲▼<,]/g, "").replace("−", "-"));
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, at) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
      const rows = [...table.tBodies[0].rows].map((row) => [row, row.cells[at].textContent]);
      rows.sort(([, a], [, b]) => {
        const [x, y] = [number(a), number(b)];
        if (Number.isNaN(x) !== Number.isNaN(y)) return Number.isNaN(x) ? 1 : -1;  // what is missing comes last
        return sign * (Number.isNaN(x) ? a.localeCompare(b) : x - y);
      });
      table.tBodies[0].append(...rows.map(([row]) => row));
    };
  });
}
"""
