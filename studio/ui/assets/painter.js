// A picture to start from and a mask painted over it. The file's own bytes go to the studio, which answers with the
// digest under which it keeps them; only digests are in the form.
const text = props.text;
let brush = 24, drawing = null, painted = false;
const made = (tag, attributes = {}, ...children) => {
  const node = Object.assign(document.createElement(tag), attributes);
  node.append(...children);
  return node;
};
const file = made("input", { type: "file", accept: "image/png,image/jpeg,image/webp", hidden: true });
const choose = made("button", { type: "button", className: "paint-choose", textContent: text.choose, onclick: () => file.click() });
const picture = made("img", { className: "paint-picture", alt: "" });
const mask = made("canvas", { className: "paint-mask" });
const sized = made("input", { type: "range", min: 4, max: 120, value: brush, oninput: () => { brush = Number(sized.value); } });
const tools = made("div", { className: "paint-tools" },
  made("label", {}, made("span", { textContent: text.brush }), sized),
  made("button", { type: "button", className: "row-button", textContent: text.wipe, onclick: () => wipe() }),
  made("button", { type: "button", className: "row-button", textContent: text.clear, onclick: () => clear() }));
const board = made("div", { className: "paint-board", hidden: true }, made("div", { className: "paint-stack" }, picture, mask), tools,
  made("p", { className: "row-none", textContent: text.hint }));
const error = made("p", { className: "paint-error", role: "alert" });
element.replaceChildren(made("div", { className: "paint" }, file, choose, board, error));

const publish = (change) => { props.value = { ...(props.value || {}), ...change }; trigger("change"); };
const asData = (blob) => new Promise((done, fail) => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.onerror = () => fail(reader.error);
  reader.readAsDataURL(blob);
});
const keep = async (data) => {
  const answer = await server.keep(data).catch(() => ({ error: text.failed }));
  error.textContent = answer.error || "";
  return answer.digest || null;
};
const show = (source) => { picture.src = source || ""; board.hidden = !source; choose.hidden = !!source; };
const wipe = () => { mask.getContext("2d").clearRect(0, 0, mask.width, mask.height); painted = false; publish({ mask: null }); };
const clear = () => { file.value = ""; show(null); wipe(); publish({ image: null, mask: null }); };
const load = async (chosen) => {
  if (!chosen) return;
  const data = await asData(chosen);
  const digest = await keep(data);
  file.value = "";
  if (!digest) return;
  publish({ image: digest, mask: null });
  show(data);
};
picture.addEventListener("load", () => {
  mask.width = picture.naturalWidth;
  mask.height = picture.naturalHeight;
  painted = false;
});
file.addEventListener("change", () => load(file.files[0]));
choose.addEventListener("dragover", (event) => event.preventDefault());
choose.addEventListener("drop", (event) => { event.preventDefault(); load(event.dataTransfer.files[0]); });

const at = (event) => {
  const box = mask.getBoundingClientRect();
  return [(event.clientX - box.left) * mask.width / box.width, (event.clientY - box.top) * mask.height / box.height, mask.width / box.width];
};
const stroke = (event) => {
  const [x, y, scale] = at(event), pen = mask.getContext("2d");
  Object.assign(pen, { lineCap: "round", lineJoin: "round", lineWidth: brush * scale, strokeStyle: "#fff" });
  pen.beginPath();
  pen.moveTo(...(drawing || [x, y]));
  pen.lineTo(x, y);
  pen.stroke();
  drawing = [x, y];
  painted = true;
};
mask.addEventListener("pointerdown", (event) => { mask.setPointerCapture(event.pointerId); drawing = null; stroke(event); });
mask.addEventListener("pointermove", (event) => { if (drawing) stroke(event); });
mask.addEventListener("pointerup", async () => {
  drawing = null;
  if (!painted) return;
  const flat = made("canvas", { width: mask.width, height: mask.height }), pen = flat.getContext("2d");
  pen.fillRect(0, 0, flat.width, flat.height);
  pen.drawImage(mask, 0, 0);
  publish({ mask: await keep(flat.toDataURL("image/png")) });
});
watch(["shown"], () => show(props.shown?.image));
