"use strict";
// The charts. Everything they show is in `data`; nothing is fetched.
(async () => {
  const $ = (id) => document.getElementById(id);
  const unpack = async (id) => {
    const packed = atob($(id).textContent), bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };
  const root = document.documentElement;
  const wanted = matchMedia("(prefers-color-scheme: dark)");
  root.dataset.theme = wanted.matches ? "dark" : "light";
  if (typeof DecompressionStream === "undefined") { $("broken").hidden = false; return; }
  const [source, text] = await Promise.all([unpack("plotly"), unpack("data")]);
  document.head.append(Object.assign(document.createElement("script"), { textContent: source }));
  const data = JSON.parse(text);
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();
  const digits = (value) => (value === null || value === undefined ? "not finite or not measured" : String(Number(Number(value).toPrecision(4))));
  const large = (value) => Number(Number(value).toPrecision(4)).toLocaleString("en");
  const tools = matchMedia("(hover: hover)").matches ? "hover" : false; // a finger has no use for them, and they cover the chart
  const config = { responsive: true, displaylogo: false, displayModeBar: tools, modeBarButtonsToRemove: ["lasso2d", "select2d"] };
  const escape = (s) => String(s).replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
  const middle = (name, most) => (name.length <= most ? name : `${name.slice(0, most / 2 - 1)}…${name.slice(-most / 2)}`);

  const layout = (more) => ({
    margin: { l: 64, r: 16, t: 10, b: 42 },
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: colour("text") },
    hoverlabel: { bgcolor: colour("panel"), bordercolor: colour("line"), font: { color: colour("text") }, align: "left", namelength: -1 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("dim"), activecolor: colour("text") },
    ...more,
  });
  const axis = (title, more) => ({ title: { text: title }, gridcolor: colour("line"), linecolor: colour("line"), zeroline: false, automargin: true, ...more });
  const draw = (id, traces, more) => Plotly.react($(id), traces, layout(more), config);

  let candidate = data.candidates[0], chosen = null, output = null;
  let layers = [], byTensor = new Map(), readers = new Map();

  const use = (name) => {
    candidate = name;
    layers = data.layers.filter((layer) => layer.candidate === name);
    byTensor = new Map(layers.map((layer) => [layer.tensor, layer]));
    readers = new Map();
    for (const layer of layers) for (const input of layer.inputs || []) {
      if (!readers.has(input)) readers.set(input, []);
      readers.get(input).push(layer);
    }
    const guilty = data.culprits.find((culprit) => culprit.candidate === name && culprit.tensors.some((t) => byTensor.has(t)));
    const loudest = layers.reduce((a, b) => (((b.local || {}).rel_l2 || 0) > ((a && a.local || {}).rel_l2 || 0) ? b : a), layers[0]);
    chosen = guilty ? byTensor.get(guilty.tensors.find((t) => byTensor.has(t))) : loudest;
    if ($("names")) $("names").replaceChildren(...layers.map((layer) => Object.assign(document.createElement("option"), { value: layer.node, label: layer.op })));
  };

  // Powers of two side by side, with one empty place for a gap of many: a mask of -3e38 would leave nothing of the rest.
  const GAP = 12;
  const scale = (exponents, kept = []) => {
    const known = [...new Set([...exponents, ...kept])].sort((a, b) => a - b), places = [];
    for (const e of known) {
      const last = places.length ? places[places.length - 1] : e;
      if (e - last > GAP) places.push(null);
      else for (let between = last + 1; between < e; between++) places.push(between);
      places.push(e);
    }
    const step = Math.ceil(places.length / 16);
    const shown = places.map((e, i) => [e, i]).filter(([e, i]) => e === null || i % step === 0 || places.length < 16);
    return {
      at: (e) => {
        const whole = Math.floor(e), i = places.indexOf(whole);
        return i < 0 ? null : i + (e - whole);
      },
      axis: { tickvals: shown.map(([, i]) => i), ticktext: shown.map(([e]) => (e === null ? "…" : String(e))), range: [-0.7, places.length - 0.3] },
    };
  };

  const positive = (value) => (value > 0 ? value : null); // a logarithm knows no zero
  const error = (layer, which) => positive((layer[which] || {}).rel_l2);
  const noise = (layer) => (layer.z > 0 && (layer.local || {}).rel_l2 > 0 ? layer.local.rel_l2 / layer.z : null);
  const facts = (layer) => [
    `<b>${escape(middle(layer.node, 70))}</b> (${escape(layer.op)})`,
    `${layer.verdict}${layer.cause ? `: ${layer.cause}` : ""}`,
    layer.portrait && layer.portrait.shape ? `${layer.portrait.dtype} [${layer.portrait.shape.join(", ")}]` : "",
    `local ${digits((layer.local || {}).rel_l2)}, cumulative ${digits((layer.cumulative || {}).rel_l2)}`,
    layer.z !== undefined ? `${large(layer.z)} times the expected noise` : "",
    layer.origin ? escape(layer.origin) : "",
  ].filter(Boolean).join("<br>");

  const network = () => {
    const x = layers.map((_, i) => i), hover = layers.map(facts);
    const line = (name, values, style) => ({ type: "scatter", mode: layers.length > 400 ? "lines" : "lines+markers", name, x, y: values, text: hover, hovertemplate: "%{text}<extra></extra>", line: { width: 1.6, ...style }, marker: { size: 4, color: style.color }, connectgaps: false });
    const pick = (verdict, name, symbol, tone) => {
      const at = x.filter((i) => layers[i].verdict === verdict);
      const y = at.map((i) => error(layers[i], "local") || error(layers[i], "cumulative"));
      return { type: "scatter", mode: "markers", name, x: at, y, text: at.map((i) => hover[i]), hovertemplate: "%{text}<extra></extra>", marker: { size: 12, symbol, color: colour(tone), line: { width: 1.5, color: colour("back") } } };
    };
    const traces = [
      line("cumulative", layers.map((l) => error(l, "cumulative")), { color: colour("cumulative") }),
      line("local", layers.map((l) => error(l, "local")), { color: colour("local") }),
      line("expected noise", layers.map(noise), { color: colour("noise"), dash: "dot" }),
      pick("culprit", "culprit", "diamond", "fail"),
    ];
    const infinite = x.filter((i) => layers[i].cumulative && layers[i].cumulative.rel_l2 === null);
    const shapes = infinite.slice(0, 300).map((i) => ({ type: "line", x0: i, x1: i, yref: "paper", y0: 0.97, y1: 1, line: { color: colour("fail"), width: 2 } }));
    const unseen = x.filter((i) => !layers[i].local && !layers[i].cumulative);
    shapes.push(...unseen.slice(0, 300).map((i) => ({ type: "line", x0: i, x1: i, yref: "paper", y0: 0, y1: 0.03, line: { color: colour("none"), width: 2 } })));
    const now = layers.indexOf(chosen);
    if (now >= 0) shapes.push({ type: "line", x0: now, x1: now, yref: "paper", y0: 0, y1: 1, line: { color: colour("dim"), width: 1, dash: "dash" } });
    const shown = traces.flatMap((trace) => trace.y).filter((y) => y > 0).map(Math.log10).sort((a, b) => a - b);
    // beside a mask of -3e38 an error is 1e-40 of the values: few such points must not squeeze all others
    const low = Math.max(shown[0], shown[Math.floor(shown.length / 4)] - 4), high = shown[shown.length - 1];
    const cut = low > shown[0] ? { range: [low - 0.3, high + 0.3] } : {};
    const decades = high - low; // an axis of less than two has its ticks in between
    draw("network", traces, {
      uirevision: candidate, shapes, hovermode: "closest", dragmode: "zoom",
      xaxis: axis("layer, in the order of the graph", layers.length < 15 ? { dtick: 1 } : {}), yaxis: axis("relative L2 error", { type: "log", exponentformat: "power", ...cut, dtick: decades > 2 ? 1 : "D2" }),
    });
  };

  const values = () => {
    const portrait = chosen.portrait || {}, sides = portrait.sides;
    if (!sides) { Plotly.purge($("values")); $("values").textContent = "No values were kept of this layer."; return; }
    if (!$("values").querySelector(".plotly")) $("values").textContent = "";
    const exponents = [sides.reference, sides.candidate].flatMap((s) => Object.keys(s.magnitudes).map(Number));
    const near = (v) => exponents.some((e) => Math.abs(Math.log2(v) - e) < 16);
    const format = data.formats[candidate], shapes = [], annotations = [];
    const ends = format ? [format.max, format.normal, format.least].filter(near) : [];
    const places = scale(exponents, ends.map((v) => Math.floor(Math.log2(v))));
    const bars = (side, name, tone) => {
      const found = Object.entries(side.magnitudes).map(([e, n]) => [Number(e), (100 * n) / side.elements]).sort((a, b) => a[0] - b[0]);
      return { type: "bar", opacity: 0.6, marker: { color: colour(tone) }, name, x: found.map((f) => places.at(f[0])), y: found.map((f) => f[1]), customdata: found.map((f) => f[0]), hovertemplate: "2<sup>%{customdata}</sup>: %{y:.3g}%<extra></extra>" };
    };
    const mark = (value, label) => {
      const at = places.at(Math.log2(value)) - 0.5; // a bar has its power of two in its middle
      shapes.push({ type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: { color: colour("fail"), width: 1.5, dash: "dot" } });
      annotations.push({ x: at, y: 1, yref: "paper", yanchor: "top", xanchor: "left", text: label, showarrow: false, textangle: 90, font: { color: colour("fail"), size: 11 } });
    };
    if (format) {
      if (near(format.max)) mark(format.max, `${format.name} max`);
      if (near(format.normal)) mark(format.normal, `${format.name} normal`);
      if (near(format.least)) mark(format.least, `${format.name} least`);
    }
    draw("values", [bars(sides.reference, data.reference, "local"), bars(sides.candidate, candidate, "cumulative")], {
      shapes, annotations, barmode: "overlay", bargap: 0.05, xaxis: axis("|value|, power of two", places.axis), yaxis: axis("% of elements", { rangemode: "tozero" }),
    });
  };

  const channels = () => {
    const found = (chosen.portrait || {}).channels;
    $("channels-figure").hidden = !found;
    if (!found) return;
    draw("channels", [{ type: "bar", x: found.map((_, i) => i), y: found, marker: { color: colour("cumulative") }, hovertemplate: "channel %{x}: %{y:.3g}<extra></extra>" }], {
      xaxis: axis(`channel (axis ${chosen.portrait.axis})`), yaxis: axis("relative L2 error", { exponentformat: "power" }), bargap: 0.1,
    });
  };

  const heatmap = () => {
    const portrait = chosen.portrait || {}, found = portrait.heatmap;
    $("heatmap-figure").hidden = !found;
    if (!found) return;
    const step = (n, cells) => Array.from({ length: cells }, (_, i) => Math.floor((i * n) / cells));
    draw("heatmap", [{ type: "heatmap", z: found, x: step(portrait.columns, found[0].length), y: step(portrait.rows, found.length), colorscale: "Viridis", colorbar: { thickness: 10, outlinewidth: 0, exponentformat: "power" }, hovertemplate: "row %{y}, column %{x}: %{z:.3g}<extra></extra>" }], {
      xaxis: axis("last axis"), yaxis: axis("all other axes", { autorange: "reversed" }),
    });
  };

  const around = () => {
    const before = (chosen.inputs || []).map((name) => byTensor.get(name) || name);
    const behind = readers.get(chosen.tensor) || [];
    const column = (items, x) => items.slice(0, 5).map((item, i, all) => ({ item, x, y: 130 + (i - (all.length - 1) / 2) * 50 }));
    const left = column(before, 0), right = column(behind, 440), here = { item: chosen, x: 220, y: 130 };
    const box = ({ item, x, y }) => {
      const known = typeof item !== "string";
      const kind = `node ${known ? item.verdict : "unknown"}${item === chosen ? " chosen" : ""}`;
      const name = escape(middle(known ? item.node : item, 22)), below = known ? `${escape(item.op)}, ${digits((item.local || {}).rel_l2).slice(0, 10)}` : "input of the model";
      return `<g class="${kind}" data-tensor="${known ? escape(item.tensor).replace(/"/g, "&quot;") : ""}"><title>${escape(known ? item.node : item)}</title><rect x="${x}" y="${y - 19}" width="180" height="38" rx="6"/><text x="${x + 8}" y="${y - 3}">${name}</text><text x="${x + 8}" y="${y + 12}" opacity="0.7">${below}</text></g>`;
    };
    const edge = (a, b) => `<path d="M${a.x + 180},${a.y} C${a.x + 200},${a.y} ${b.x - 20},${b.y} ${b.x},${b.y}"/>`;
    const more = (items, x) => (items.length > 5 ? `<text x="${x}" y="270">and ${items.length - 5} more</text>` : "");
    const rows = Math.max(left.length, right.length, 1), height = 50 * rows + (before.length > 5 || behind.length > 5 ? 60 : 10);
    $("around").innerHTML = `<svg viewBox="-4 ${130 - 25 * rows - 5} 632 ${height}" role="img" aria-label="the layers before and behind">${left.map((n) => edge(n, here)).join("")}${right.map((n) => edge(here, n)).join("")}${[...left, here, ...right].map(box).join("")}${more(before, 0)}${more(behind, 440)}</svg>`;
    for (const node of $("around").querySelectorAll("g.node")) node.addEventListener("click", () => choose(byTensor.get(node.dataset.tensor)));
    $("around").scrollLeft = ($("around").scrollWidth - $("around").clientWidth) / 2;
  };

  const describe = () => {
    $("layer-name").textContent = `${chosen.node} (${chosen.op})`;
    const side = (which) => ((chosen.portrait || {}).sides || {})[which];
    const range = (which) => (side(which) ? `${digits(side(which).least)} to ${digits(side(which).greatest)}${side(which).not_finite ? `, ${side(which).not_finite.toLocaleString("en")} of ${side(which).elements.toLocaleString("en")} not finite` : ""}` : null);
    const infinite = ["reference", "candidate"].some((which) => (side(which) || {}).not_finite);
    const told = (error) => {
      if (!error) return "not measured";
      if (infinite && error.rel_l2 === null && error.max_abs === null) return "not finite";
      return `rel L2 ${digits(error.rel_l2)}, max ${digits(error.max_abs)}`;
    };
    const rows = {
      verdict: `${chosen.verdict}${chosen.cause ? `: ${chosen.cause}` : ""}`,
      tensor: `${chosen.tensor}${chosen.portrait && chosen.portrait.shape ? `, ${chosen.portrait.dtype} [${chosen.portrait.shape.join(", ")}]` : ""}`,
      "local error": told(chosen.local),
      "cumulative error": told(chosen.cumulative),
      "over expected noise": chosen.z === undefined ? null : `${large(chosen.z)} times`,
      contribution: chosen.contribution === undefined ? null : `${(100 * chosen.contribution).toPrecision(3)}%`,
      [`values of ${data.reference}`]: range("reference"),
      [`values of ${candidate}`]: range("candidate"),
      "fused nodes": (chosen.nodes || []).join(", ") || null,
      "in the candidate": chosen.other || null,
      source: chosen.origin || null,
    };
    $("layer-facts").replaceChildren(...Object.entries(rows).filter(([, value]) => value).flatMap(([key, value]) => [
      Object.assign(document.createElement("dt"), { textContent: key }), Object.assign(document.createElement("dd"), { textContent: value }),
    ]));
  };

  const contribution = () => {
    const found = layers.filter((l) => l.contribution > 0 && l.verdict !== "healed").sort((a, b) => b.contribution - a.contribution).slice(0, 15).reverse();
    $("contribution-section").hidden = !found.length;
    if (!found.length) return;
    $("contribution").style.height = `${70 + 22 * found.length}px`;
    draw("contribution", [{ type: "bar", orientation: "h", x: found.map((l) => 100 * l.contribution), y: found.map((l) => l.node), text: found.map(facts), textposition: "none", hovertemplate: "%{text}<br>%{x:.3g}%<extra></extra>", marker: { color: found.map((l) => colour(l.verdict === "culprit" ? "fail" : "local")) } }], {
      margin: { l: 10, r: 16, t: 4, b: 40 }, xaxis: axis("% of the error at the outputs"),
      yaxis: axis("", { type: "category", tickvals: found.map((l) => l.node), ticktext: found.map((l) => middle(l.node, innerWidth < 760 ? 18 : 44)) }),
    });
  };

  const latency = () => {
    if (!$("latency")) return;
    const names = data.latency.map((l) => l.runner).reverse();
    const bar = (which, tone) => ({ type: "bar", orientation: "h", name: which, y: names, x: data.latency.map((l) => l[which]).reverse(), marker: { color: colour(tone) }, hovertemplate: "%{y}: %{x:.4g} ms<extra>" + which + "</extra>" });
    $("latency").style.height = `${90 + 50 * names.length}px`;
    draw("latency", [bar("median", "local"), bar("p99", "noise")], { barmode: "group", xaxis: axis("milliseconds a run", { rangemode: "tozero" }), yaxis: axis("", { type: "category" }) });
  };

  const histogram = () => {
    const figure = $("histogram-figure");
    if (!figure) return;
    figure.hidden = !(output && output.histogram);
    if (figure.hidden) return;
    $("histogram-name").textContent = `|difference| of ${output.tensor} on ${output.candidate}, by magnitude`;
    const found = Object.entries(output.histogram).map(([e, n]) => [Number(e), n]).sort((a, b) => a[0] - b[0]);
    const places = scale(found.map((f) => f[0]));
    draw("histogram", [{ type: "bar", x: found.map((f) => places.at(f[0])), y: found.map((f) => f[1]), customdata: found.map((f) => f[0]), marker: { color: colour("cumulative") }, hovertemplate: "2<sup>%{customdata}</sup>: %{y:,} elements<extra></extra>" }], { xaxis: axis("|difference|, power of two", places.axis), yaxis: axis("elements"), bargap: 0.05 });
  };

  const choose = (layer) => {
    if (!layer) return;
    chosen = layer;
    network(); describe(); values(); channels(); heatmap(); around();
  };
  const everything = () => {
    if (layers.length && $("network")) { choose(chosen); contribution(); }
    latency(); histogram();
  };

  if (data.candidates.length) use(data.candidates[0]);
  output = data.outputs.find((o) => o.verdict !== "pass" && o.histogram) || data.outputs.find((o) => o.histogram);
  everything();
  if ($("network") && $("network").on) $("network").on("plotly_click", (event) => choose(layers[event.points[0].x]));
  $("theme").addEventListener("click", () => { root.dataset.theme = root.dataset.theme === "dark" ? "light" : "dark"; everything(); });
  wanted.addEventListener("change", () => { root.dataset.theme = wanted.matches ? "dark" : "light"; everything(); });
  const shownAs = () => root.dataset.theme;
  let screen = shownAs();
  addEventListener("beforeprint", () => { screen = shownAs(); root.dataset.theme = "light"; everything(); });
  addEventListener("afterprint", () => { root.dataset.theme = screen; everything(); });
  if ($("candidate")) $("candidate").addEventListener("change", (event) => { use(event.target.value); everything(); });
  if ($("find")) $("find").addEventListener("change", (event) => {
    const word = event.target.value.toLowerCase();
    choose(layers.find((l) => l.node === event.target.value) || layers.find((l) => `${l.node} ${l.op} ${l.tensor}`.toLowerCase().includes(word)));
  });
  for (const [id, step] of [["previous", -1], ["next", 1]]) if ($(id)) $(id).addEventListener("click", () => choose(layers[layers.indexOf(chosen) + step]));
  for (const button of document.querySelectorAll("button.pick")) button.addEventListener("click", () => {
    if (button.dataset.candidate !== candidate && $("candidate")) { $("candidate").value = button.dataset.candidate; use(button.dataset.candidate); contribution(); }
    choose(byTensor.get(button.dataset.tensor));
    if ($("layer-section")) $("layer-section").scrollIntoView({ behavior: "smooth" });
  });
  for (const row of document.querySelectorAll("#outputs tr[data-tensor]")) row.addEventListener("click", () => {
    output = data.outputs.find((o) => o.candidate === row.dataset.candidate && o.tensor === row.dataset.tensor);
    histogram();
  });
  root.dataset.ready = "yes";
})().catch((error) => { document.getElementById("broken").hidden = false; throw error; });
