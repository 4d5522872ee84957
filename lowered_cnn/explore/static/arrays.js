// Arrays as the package sends them, {dtype, shape, data in base64}, and as the page uses them, {shape, data}.

const TYPES = { uint8: Uint8Array, float32: Float32Array };

/** Return the array that a packed one stands for. */
function unpack({ dtype, shape, data }) {
  const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
  return { shape, data: new TYPES[dtype](bytes.buffer) };
}

/** Return an array as it is sent. */
export function pack({ shape, data }) {
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  let text = "";
  for (const byte of bytes) text += String.fromCharCode(byte);
  return { dtype: data instanceof Uint8Array ? "uint8" : "float32", shape, data: btoa(text) };
}

/** Return what JSON holds, with every packed array in it unpacked. */
export function revive(value) {
  if (Array.isArray(value)) return value.map(revive);
  if (value === null || typeof value !== "object") return value;
  if ("dtype" in value && "data" in value) return unpack(value);
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, revive(inner)]));
}

/** Return a matrix (rows, columns) with these numbers in row-major order. */
export function matrix(rows, cols, data) {
  return { shape: [rows, cols], data };
}

/** Return the number in row r and column c of a matrix. */
export function entry(m, r, c) {
  return m.data[r * m.shape[1] + c];
}

/** Return A B. */
export function multiply(a, b) {
  const [rows, inner] = a.shape;
  const cols = b.shape[1];
  const out = new Float32Array(rows * cols);
  for (let r = 0; r < rows; r++) {
    for (let k = 0; k < inner; k++) {
      const factor = a.data[r * inner + k];
      if (factor) for (let c = 0; c < cols; c++) out[r * cols + c] += factor * b.data[k * cols + c];
    }
  }
  return matrix(rows, cols, out);
}

/** Return A^T. */
export function transpose(a) {
  const [rows, cols] = a.shape;
  const out = new Float32Array(a.data.length);
  for (let r = 0; r < rows; r++) for (let c = 0; c < cols; c++) out[c * rows + r] = a.data[r * cols + c];
  return matrix(cols, rows, out);
}

/** Return the largest magnitude among finite numbers, at least a tiny one. */
export function largest(data) {
  let most = 1e-30;
  for (const value of data) if (Number.isFinite(value)) most = Math.max(most, Math.abs(value));
  return most;
}

/** Return the index of the number of the largest magnitude. */
export function strongest(data) {
  return data.reduce((best, value, k) => (Math.abs(value) > Math.abs(data[best]) ? k : best), 0);
}

/** Return the indices of the `most` largest numbers, in their order. */
export function largestOnes(numbers, most) {
  const indices = Array.from(numbers.keys()).sort((a, b) => numbers[b] - numbers[a]);
  return indices.slice(0, most).sort((a, b) => a - b);
}

/** Return the indices of the k-th number, in row-major order, of an array of a shape. */
export function placeIn(shape, k) {
  return shape.map((length, axis) => Math.floor(k / shape.slice(axis + 1).reduce((a, b) => a * b, 1)) % length);
}

/** Return the index of the largest number. */
export function argmax(data) {
  let best = 0;
  for (let k = 1; k < data.length; k++) if (data[k] > data[best]) best = k;
  return best;
}
