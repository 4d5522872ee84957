// The equations, as MathML, by their number in the derivation.

const row = (...parts) => `<mrow>${parts.map(text).join("")}</mrow>`;
const sub = (base, below) => `<msub>${text(base)}${text(below)}</msub>`;
const sup = (base, above) => `<msup>${text(base)}${text(above)}</msup>`;
const frac = (above, below) => `<mfrac>${text(above)}${text(below)}</mfrac>`;
const sum = (below, ...parts) => row(`<munder><mo>∑</mo>${text(below)}</munder>`, ...parts);
const hat = (base) => `<mover>${text(base)}<mo stretchy="false">^</mo></mover>`;
const turned = (base) => sup(base, `<mi mathvariant="normal">T</mi>`);
const said = (words) => `<mtext>${words}</mtext>`;
const partial = (below) => frac("∂J", `∂${below}`);

/** Return plain text as MathML: a letter is italic, a word and the d of a gradient dW are upright, and all else is an operator. */
function text(part) {
  if (part.startsWith("<")) return part;
  const tokens = part.match(/[d∂](?=[A-Zbw]\b)|[A-Za-zα-ω]+\d*|\d+(\.\d+)?|\S/g) ?? [];
  const inner = tokens.map((token) => {
    if (/^\d/.test(token)) return `<mn>${token}</mn>`;
    if (token === "d") return `<mi mathvariant="normal">d</mi>`;
    return /^[A-Za-zα-ω∂]/.test(token) ? `<mi>${token}</mi>` : `<mo>${token}</mo>`;
  });
  return inner.length === 1 ? inner[0] : `<mrow>${inner.join("")}</mrow>`;
}

const EQUATIONS = {
  conv: ["S1", row(sub("Z", "k,i,j"), "=", sum("c,a,b", sub("X", "c, i·SH+a·DH−PH, j·SW+b·DW−PW"), sub("W", "k,c,a,b")), "+", sub("b", "k"))],
  product: ["S1", row("Z = W · im2col(X) + b")],
  dweight: ["S2", row("dW = dZ ·", turned("im2col(X)"))],
  dbias: ["S3", row(sub("db", "k"), "=", sum("i,j", sub("dZ", "k,i,j")))],
  dcolumns: ["S4", row("dcolumns =", turned("W"), "· dZ")],
  dx: ["S4", row("dX = col2im(", turned("W"), "· dZ )")],
  flipped: ["S4", row(sub("dX", "c,y,x"), "=", sum("k,a,b", sub("dZ", "k, y−a, x−b"), sub("W", "k,c,a,b")))],
  flipped_window: ["S4", row(sub("dX", "c,y,x"), "=", sum("k,a,b", sub("dZ", "k, (y+PH−a·DH)/SH, (x+PW−b·DW)/SW"), sub("W", "k,c,a,b")))],
  relu: ["S5", row("Y = max(X, 0)")],
  drelu: ["S5", row("dX = dY · [X > 0]")],
  max_pool: ["S6", row(sub("Y", "c,i,j"), "=", `<munder><mi>max</mi>${text("a,b")}</munder>`, sub("X", "c, i·SH+a·DH−PH, j·SW+b·DW−PW"))],
  dmax_pool: ["S6", row(sub("dX", "c,y,x"), "=", sum("i,j", sub("dY", "c,i,j"), "·", said("[ (y, x) is the first maximum of window (i, j) ]")))],
  avg_pool: ["S7", row("Y =", frac("1", "KH · KW"), row("( 1 … 1 )"), "· im2col(X)")],
  davg_pool: ["S7", row("dX = col2im(", frac("1", "KH · KW"), turned("( 1 … 1 )"), "· dY )")],
  dense: ["S8", row("Z = W · A + b")],
  ddense: ["S8", row("dW = dZ ·", turned("A"), ", dA =", turned("W"), "· dZ")],
  ddense_bias: ["S8", row("db = dZ")],
  softmax: ["S9", row(sub(hat("Y"), "k"), "=", frac(row(sup("e", sub("Z", "k"))), sum("l", sup("e", sub("Z", "l")))))],
  loss: ["S9", row("J = −", sum("k", sub("Y", "k"), "log", sub(hat("Y"), "k")))],
  dsoftmax: ["S9", row("dZ =", hat("Y"), "− Y")],
  sgd: ["S10", row("W ← W − η · dW")],
  difference: [null, row(partial("w"), "≈", frac("J(w+h) − J(w−h)", "2 h"))],
  size: ["S1", row("OH =", `<mo form="prefix">⌊</mo>`, frac("H + 2·PH − DH·(KH−1) − 1", "SH"), `<mo form="postfix">⌋</mo>`, "+ 1")],
  tree: [null, row("dW = ( (", sub("g", "1"), "+", sub("g", "2"), ") + (", sub("g", "3"), "+", sub("g", "4"), ") ) + …")],
};

/** Return the element of an equation, with its number in the derivation. */
export function equation(name) {
  const [number, inner] = EQUATIONS[name];
  const element = document.createElement("div");
  element.className = "equation";
  element.innerHTML = `<math display="block">${inner}</math>${number ? `<span class="number">${number}</span>` : ""}`;
  return element;
}

/** Return equation "size" for one axis, named by a letter, with its numbers in it. */
export function sizeInNumbers(letter, { size, pads: [before, after], dilation, kernel, stride }) {
  const room = size + before + after - dilation * (kernel - 1) - 1;
  const above = `${size} + ${before} + ${after} − ${dilation}·(${kernel}−1) − 1`;
  const element = document.createElement("div");
  element.className = "equation";
  element.innerHTML = `<math display="block">${row(`O${letter} =`, `<mo form="prefix">⌊</mo>`, frac(above, `${stride}`), `<mo form="postfix">⌋</mo>`, "+ 1 =", `${Math.max(0, Math.floor(room / stride) + 1)}`)}</math>`;
  return element;
}

/** Return the equations of a stage, forward and backward; none for a layer that the derivation does not have. */
export function equationsOf(stage) {
  const known = {
    conv: ["conv", "product"],
    max_pool: ["max_pool"],
    avg_pool: ["avg_pool"],
    dense: ["dense"],
    relu: ["relu"],
    softmax: ["softmax"],
  };
  return known[stage.view] ?? known[stage.kind] ?? [];
}
