// What belongs together in the graph as it was written (left) and the optimised one (right). `level` is a level of
// fusion.json: `nodes[i].from` are the original nodes that node i stands for, `gone` those that have no node any more.

/** Ids in both graphs that belong to the selected one: `{left: [ids], right: [ids]}`. side: "left" or "right". */
export function family(level, side, index) {
  const right = side === "right" ? [index] : level.nodes.flatMap(({ from }, at) => (from.includes(index) ? [at] : []));
  const left = side === "left" && !right.length ? [index] : [...new Set(right.flatMap((at) => level.nodes[at].from))];
  const ids = (list) => list.sort((a, b) => a - b).map((at) => `node ${at}`);
  return { left: ids(left), right: ids(right) };
}

/** One sentence on the selected node. ops: operators of both graphs, `{left: ["Conv", …], right: […]}`. */
export function tell(level, side, index, ops) {
  if (side === "left" && level.gone[index]) {
    const why = {
      removed: "it passed its input on unchanged, or its result was not used",
      folded: "only constants went in, so it was computed once, and its result is stored in the file",
    };
    return `${ops.left[index]} is gone (${level.gone[index]}): ${why[level.gone[index]]}.`;
  }
  const at = side === "right" ? index : level.nodes.findIndex(({ from }) => from.includes(index));
  if (at < 0) return `${ops.left[index]} has no node of its own any more.`;
  const { from, what } = level.nodes[at];
  const originals = from.map((one) => ops.left[one]).join(" + ");
  if (what === "fused") return `${originals} became one node, ${ops.right[at]} (fused).`;
  if (what === "kept") return `${ops.right[at]} stayed as it was (kept).`;
  if (what === "rewritten") return `${originals} became ${ops.right[at]} (rewritten).`;
  return `${ops.right[at]} stands for nothing of the original (${what}).`;
}

/** Bytes that travel between nodes: all that is read and written. */
export function moved(level) {
  return level.nodes.reduce((sum, { reads, writes }) => sum + reads + writes, 0);
}

/** Numbers like those of a picture, the same ones for the same seed (mulberry32, then the sum of three: roughly normal). */
export function randomInput(seed, length) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float32Array.from({ length }, () => 2 * (next() + next() + next()) - 3);
}
