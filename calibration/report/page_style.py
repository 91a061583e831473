"""The report's style sheet. Colours are named once and change with the reader's theme."""

from typing import Final

STYLE: Final = """
:root{--paper:#fbfaf8;--card:#fff;--ink:#1d1c1a;--soft:#65615a;--line:#e4e0d8;--accent:#0b6e8f;
--s0:#0b6e8f;--s1:#b4531a;--s2:#6a4fa3;--band:#d9483b22;--good:#1a7f4b;--usable:#946200;
--poor:#b3261e;--ring:#b4531a}
@media(prefers-color-scheme:dark){:root{--paper:#151618;--card:#1d1f22;--ink:#ececea;
--soft:#a3a29d;--line:#33363a;--accent:#5cc0e0;--s0:#5cc0e0;--s1:#f0995c;--s2:#b7a1ec;
--band:#ff6b5e2e;--good:#5fd097;--usable:#e9b949;--poor:#ff8a80;--ring:#f0995c}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1040px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:2rem;line-height:1.2;margin:0 0 20px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:0 0 4px}
h3{font-size:1rem;margin:20px 0 8px}
h3 small{color:var(--soft);font-weight:400;margin-left:8px}
section{margin-top:44px}
section>h2:not(:first-child){margin-top:32px}
.eyebrow{margin:0 0 4px;color:var(--soft);font-size:.9rem}
.lead{color:var(--soft);margin:0 0 14px;max-width:68ch}
ul{margin:0;padding-left:1.1em}
li+li{margin-top:4px}
.verdict{display:grid;grid-template-columns:minmax(140px,auto) 1fr 1fr;gap:12px 32px;margin:0;
background:var(--card);border:1px solid var(--line);border-left:6px solid var(--tone);
border-radius:10px;padding:22px 24px}
.verdict.good{--tone:var(--good)}.verdict.usable{--tone:var(--usable)}
.verdict.poor{--tone:var(--poor)}
.verdict h2{font-size:.9rem;color:var(--soft);font-weight:600;margin-bottom:6px}
.grade{display:flex;align-items:center;gap:12px;color:var(--tone);font-size:1.7rem}
.grade span{display:grid;place-items:center;width:42px;height:42px;border-radius:50%;
border:3px solid;font-size:1.3rem;line-height:1;font-weight:700}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(120px,1fr));gap:16px 24px;
margin:24px 0 0}
dt{color:var(--soft);font-size:.85rem}
dd{margin:0;font-size:1.1rem;font-weight:600;font-variant-numeric:tabular-nums}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(140px,1fr));gap:10px}
.sheet.small{grid-template-columns:repeat(auto-fill,minmax(104px,1fr));max-width:560px}
figure{margin:0}
figure img{display:block;width:100%;aspect-ratio:1;border-radius:6px;background:var(--line)}
figcaption{display:flex;justify-content:space-between;color:var(--soft);font-size:.78rem;
padding-top:3px;font-variant-numeric:tabular-nums}
.chart{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:14px}
.chart.narrow{max-width:680px}
svg{display:block;width:100%;height:auto}
.grid{stroke:var(--line);stroke-width:1}
.tick,.axis{fill:var(--soft);font-size:12px;font-variant-numeric:tabular-nums}
.line{fill:none;stroke-width:1.6;stroke-linejoin:round}
.line.s0{stroke:var(--s0)}.line.s1{stroke:var(--s1)}.line.s2{stroke:var(--s2)}
.band{fill:var(--band)}
.dots{stroke:var(--s0);stroke-width:5;stroke-linecap:round;opacity:.38;fill:none}
.ring{fill:none;stroke:var(--ring);stroke-width:1.3;opacity:.85}
.legend{margin:0 0 8px;display:flex;gap:18px;color:var(--soft);font-size:.85rem}
.legend i{display:inline-block;width:16px;height:3px;border-radius:2px;margin-right:6px;
vertical-align:middle}
.legend .s0{background:var(--s0)}.legend .s1{background:var(--s1)}.legend .s2{background:var(--s2)}
footer{margin-top:48px;color:var(--soft);font-size:.85rem;border-top:1px solid var(--line);
padding-top:14px;overflow-wrap:anywhere}
@media(max-width:720px){.verdict{grid-template-columns:1fr}main{padding:24px 16px 48px}}
@media print{body{background:#fff}section{break-inside:avoid}}
"""
