// The adapter rows: one component for any number of rows. Text from files only ever becomes textContent or value.
const text = props.text;
let rows = [];
const made = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else if (name === "label" && tag !== "optgroup") node.setAttribute("aria-label", value);
    else node[name] = value;
  }
  node.append(...children);
  return node;
};
const info = (name) => (props.choices || []).find((choice) => choice.name === name);
const fits = (choice) => !choice.problem && (!choice.family || choice.family === props.family);
const publish = () => {
  props.value = rows.map((row) => ({ ...row }));
  trigger("change");
};

const picker = (row, redraw) => {
  const option = (choice, off) => made("option", { value: choice.name, disabled: off, textContent: choice.title || choice.name, title: choice.problem || choice.name });
  const choices = props.choices || [];
  const select = made("select", { class: "row-name", label: text.adapter });
  select.append(...choices.filter(fits).map((choice) => option(choice, false)));
  if (!info(row.name)) select.prepend(made("option", { value: row.name, textContent: text.missing.replace("{name}", row.name) }));
  const others = choices.filter((choice) => !fits(choice));
  if (others.length) select.append(made("optgroup", { label: text.other }, ...others.map((choice) => option(choice, choice.name !== row.name))));
  select.value = row.name;
  select.addEventListener("change", () => {
    const choice = info(select.value);
    Object.assign(row, { name: select.value, hash: null, weight: choice ? choice.weight : 1, words: choice ? choice.words : "", trigger: "" });
    publish();
    redraw();
  });
  return select;
};

const weight = (row) => {
  const bounds = { min: -1, max: 2, step: 0.05 };
  const slider = made("input", { type: "range", ...bounds, value: row.weight, label: text.weight, class: "row-slider" });
  const number = made("input", { type: "number", min: -4, max: 4, step: 0.05, value: row.weight, label: text.weight, class: "row-weight" });
  const set = (source, other) => () => { row.weight = source.value; other.value = source.value; publish(); };
  slider.addEventListener("input", set(slider, number));
  number.addEventListener("input", set(number, slider));
  return [slider, number];
};

const field = (row, key, placeholder) => made("label", { class: "row-field" },
  made("span", { textContent: text[key] }),
  made("input", { type: "text", value: row[key] ?? "", placeholder, oninput: (event) => { row[key] = event.target.value; publish(); } }));

const line = (row, index, redraw) => {
  const known = info(row.name) || {};
  const more = made("div", { class: "row-more", hidden: !row.open },
    field(row, "words", text.words_hint), field(row, "trigger", known.trigger || text.trigger_hint), field(row, "text_weight", text.text_weight_hint));
  const toggle = made("button", { type: "button", class: "row-button", textContent: text.more, onclick: () => {
    row.open = more.hidden;
    more.hidden = !more.hidden;
    toggle.setAttribute("aria-expanded", String(!more.hidden));
  } });
  toggle.setAttribute("aria-expanded", String(!!row.open));
  const remove = made("button", { type: "button", class: "row-button row-remove", textContent: "×", label: text.remove, title: text.remove,
    onclick: () => { rows.splice(index, 1); publish(); redraw(); } });
  return made("div", { class: "adapter" }, made("div", { class: "row-main" }, picker(row, redraw), ...weight(row), toggle, remove), more);
};

const redraw = () => {
  const usable = (props.choices || []).filter(fits);
  const add = made("button", { type: "button", class: "row-add", textContent: `+ ${text.add}`, disabled: !usable.length, onclick: () => {
    const choice = usable.find((each) => !rows.some((row) => row.name === each.name)) || usable[0];
    rows.push({ name: choice.name, hash: null, weight: choice.weight, words: choice.words, trigger: "", text_weight: "" });
    publish();
    redraw();
  } });
  const empty = rows.length ? [] : [made("p", { class: "row-none", textContent: usable.length ? text.none : text.empty })];
  element.replaceChildren(made("div", { class: "rows" }, ...empty, ...rows.map((row, index) => line(row, index, redraw)), add));
};
const take = () => { rows = (props.value || []).map((row) => ({ ...row })); redraw(); };
watch(["value"], take);
watch(["choices", "family"], redraw);
take();
