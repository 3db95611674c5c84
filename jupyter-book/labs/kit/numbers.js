// Numbers beside numbers.

/** Largest difference of two lists of numbers; Infinity where they are not equally long or hold what is no number. */
export function apart(one, other) {
  if (one.length !== other.length) return Infinity;
  let largest = 0;
  for (let i = 0; i < one.length; i++) {
    const difference = Math.abs(one[i] - other[i]);
    if (!(difference <= largest)) largest = Number.isNaN(difference) ? Infinity : difference;
  }
  return largest;
}

/** A small difference as text that no line ends within: "0", "1.4e‑6". */
export const small = (difference) => (difference ? difference.toExponential(1).replace("-", "\u2011") : "0");
