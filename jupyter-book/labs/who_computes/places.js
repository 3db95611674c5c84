// Who computes which node, counted.

/** How many nodes each provider has, most first: [["WebGpu", 5], ["CPU", 1]]. placed: name of a node → provider. */
export function shares(placed) {
  const counts = new Map();
  for (const provider of Object.values(placed)) counts.set(provider, (counts.get(provider) ?? 0) + 1);
  return [...counts].sort(([, one], [, other]) => other - one);
}

/** Names of the tensors that one provider writes and another one reads: each is copied. */
export function copied(graph, placed) {
  const writer = new Map(graph.node.flatMap(({ name, output }) => output.map((tensor) => [tensor, placed[name]])));
  const crossing = graph.node.flatMap(({ name, input }) => input.filter((tensor) => writer.has(tensor) && writer.get(tensor) !== placed[name]));
  return [...new Set(crossing)];
}
