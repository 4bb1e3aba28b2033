/** The report's looks, light and dark as the reader's system is. */
export const STYLE = `
:root {
  color-scheme: light dark;
  --ground: #f6f7f9; --card: #ffffff; --ink: #1b2330; --soft: #5d6878; --line: #e2e6ec; --stripe: #f2f4f7;
  --ok: #4a80d4; --retry: #10988a; --takeover: #8657e8; --retried: #e3a21a; --bad: #d43a50; --open: #9aa4b2;
  --rate: #b9c6da; --shadow: 0 1px 2px rgb(20 30 50 / .06), 0 4px 16px rgb(20 30 50 / .05);
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #10141b; --card: #191f29; --ink: #e6ebf2; --soft: #95a1b3; --line: #2a3341; --stripe: #202835;
    --ok: #5c92e6; --retry: #2bb5a4; --takeover: #a17cf5; --retried: #e9b03a; --bad: #f0566c; --open: #6d7889;
    --rate: #3d4a5e; --shadow: none;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 16px; margin: 0 0 12px; }
p { margin: 4px 0; }
.soft, header p { color: var(--soft); }
code, .path, .mono { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 13px; }
header p { overflow-wrap: anywhere; }
.verdict { display: flex; gap: 12px; align-items: center; margin: 20px 0; padding: 12px 16px; border-radius: 10px; border: 1px solid; font-weight: 600; }
.verdict.good { color: var(--retry); border-color: color-mix(in srgb, var(--retry) 40%, transparent); background: color-mix(in srgb, var(--retry) 9%, transparent); }
.verdict.wrong { color: var(--bad); border-color: color-mix(in srgb, var(--bad) 40%, transparent); background: color-mix(in srgb, var(--bad) 9%, transparent); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(104px, 1fr)); gap: 12px; margin-bottom: 20px; }
.tile, section { background: var(--card); border: 1px solid var(--line); border-radius: 12px; box-shadow: var(--shadow); }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 23px; line-height: 1.25; font-variant-numeric: tabular-nums; letter-spacing: -.01em; }
.tile span { color: var(--soft); font-size: 13px; }
.tile.red b { color: var(--bad); } .tile.violet b { color: var(--takeover); } .tile.teal b { color: var(--retry); }
section { padding: 18px 20px; margin-bottom: 20px; }
.bar-of { display: flex; flex-wrap: wrap; gap: 8px 16px; align-items: center; justify-content: space-between; margin-bottom: 10px; }
.bar-of h2 { margin: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 14px; color: var(--soft); font-size: 13px; }
.legend i { display: inline-block; width: 14px; height: 10px; border-radius: 2px; margin-right: 6px; }
button, input { font: inherit; font-size: 13px; color: inherit; background: var(--stripe); border: 1px solid var(--line); border-radius: 7px; padding: 3px 10px; }
button { cursor: pointer; } button:hover, button[aria-pressed=true] { border-color: var(--ok); }
input { width: 220px; }
.filter { display: flex; align-items: center; gap: 10px; white-space: nowrap; }
.plot { display: grid; grid-template-columns: 124px 1fr; }
.labels { position: relative; }
.label { position: absolute; left: 0; right: 12px; display: flex; flex-direction: column; justify-content: center; line-height: 1.2; font-size: 13px; }
.label span { color: var(--soft); font-size: 12px; } .label .killed { color: var(--bad); font-weight: 600; }
.scroll { overflow-x: auto; overflow-y: hidden; }
svg { display: block; }
.row { fill: var(--stripe); } .grid { stroke: var(--line); } .tick { fill: var(--soft); font-size: 11.5px; }
.bar { cursor: pointer; } .bar:hover { stroke: var(--ink); stroke-width: 1.5; }
.completed-initial { fill: var(--ok); } .completed-retry { fill: var(--retry); } .completed-reclaim, .completed-replay { fill: var(--takeover); }
.retried { fill: var(--retried); } .failed { fill: var(--bad); } .open { fill: var(--open); }
.lost { fill: url(#hatch-lost); stroke: var(--bad); stroke-width: 1; }
.hatch-ground { fill: color-mix(in srgb, var(--bad) 22%, var(--card)); } .hatch-lost { stroke: var(--bad); stroke-width: 3; } .hatch-dead { stroke: var(--soft); stroke-width: 1.5; opacity: .35; }
.dead { fill: url(#hatch-dead); }
.rate { fill: var(--rate); }
.takeover { stroke: var(--takeover); stroke-width: 1.5; stroke-dasharray: 4 3; pointer-events: none; }
#links line { stroke: var(--ink); stroke-width: 1.5; pointer-events: none; }
#timeline .lost-end { fill: var(--card); stroke: var(--bad); stroke-width: 2.5; pointer-events: none; }
.recovery { pointer-events: none; } .recovery line { stroke: var(--takeover); stroke-width: 2; } .recovery text { fill: var(--takeover); font-weight: 600; font-size: 13px; }
.kill { pointer-events: none; } .kill line { stroke: var(--bad); stroke-width: 2; } .kill text { fill: var(--bad); font-weight: 650; font-size: 13px; }
svg.picked .bar { opacity: .22; } svg.picked .bar.same { opacity: 1; stroke: var(--ink); stroke-width: 1.5; }
#tip { position: fixed; z-index: 9; pointer-events: none; max-width: 440px; padding: 9px 12px; border-radius: 9px; background: var(--ink); color: var(--ground); font-size: 13px; line-height: 1.45; overflow-wrap: anywhere; box-shadow: 0 6px 24px rgb(0 0 0 / .28); }
#tip b { display: block; } #tip[hidden] { display: none; }
.pair { display: grid; grid-template-columns: 3fr 2fr; gap: 20px; } .pair > section { min-width: 0; }
@media (max-width: 860px) { .pair { grid-template-columns: 1fr; gap: 0; } main { padding: 20px 12px 40px; } }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 18px; margin: 0; } dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; max-height: 640px; overflow-y: auto; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 5px 9px; border-bottom: 1px solid var(--line); white-space: nowrap; vertical-align: top; }
tbody tr:last-child td { border-bottom: 0; }
.wide th { position: sticky; top: 0; background: var(--card); z-index: 1; }
th { color: var(--soft); font-weight: 600; } th[data-sort] { cursor: pointer; user-select: none; } th[data-sort]:hover { color: var(--ink); }
th[aria-sort=ascending]::after { content: " ↑"; } th[aria-sort=descending]::after { content: " ↓"; }
td.n, th.n { text-align: right; } td.path { white-space: normal; overflow-wrap: anywhere; min-width: 200px; }
tbody tr:hover { background: var(--stripe); }
.pill { display: inline-block; padding: 0 8px; border-radius: 99px; font-size: 12px; font-weight: 600; color: var(--ok); background: color-mix(in srgb, currentColor 14%, transparent); }
.pill.bad { color: var(--bad); } .pill.retry { color: var(--retry); } .pill.takeover { color: var(--takeover); } .pill.plain { color: var(--soft); }
`;
