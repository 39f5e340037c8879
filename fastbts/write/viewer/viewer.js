"use strict";
// Shows the results in the block "data" with NiiVue. Text of the page is in its HTML already; what
// is written here goes through textContent or value.

const results = JSON.parse(document.getElementById("data").textContent);
const form = document.querySelector(".controls");
const AXES = ["x", "y", "z"];

const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
const boxes = (name) => [...form.querySelectorAll(`input[name=${name}]`)];
const shownLabels = () => boxes("label").filter((box) => box.checked).map((box) => box.value);
const chosen = (name) => form.elements[name].value;

class Panel {
  constructor(figure, result) {
    this.figure = figure;
    this.result = result;
    this.images = new Map();
    this.ready = false;
    this.status = figure.querySelector(".status");
    this.sliders = AXES.map((axis) => figure.querySelector(`input[data-axis=${axis}]`));
    this.moved = () => {};
  }

  async open() {
    this.viewer = new niivue.Niivue({
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      multiplanarShowRender: niivue.SHOW_RENDER.ALWAYS,
      multiplanarLayout: niivue.MULTIPLANAR_TYPE.GRID,
      multiplanarPadPixels: 16, // letters of two planes stay apart
      dragAndDropEnabled: false,
      showLegend: false,
      showAllOrientationMarkers: true,
      scrollRequiresFocus: true,
      viewModeHotKey: "",
      crosshairWidth: 0.6,
      crosshairWidthUnit: "mm",
      crosshairColor: [0.55, 0.8, 1, 0.7],
      fontColor: [0.75, 0.78, 0.85, 1],
      logLevel: "error",
    });
    this.viewer.onLocationChange = () => {
      this.tell();
      this.moved(this);
    };
    await this.viewer.attachToCanvas(this.figure.querySelector("canvas"));
    this.labels = await this.read("labels", this.result.mask);
    await this.show();
    this.goTo(this.result.centre);
    this.sliders.forEach((slider) => {
      slider.disabled = false;
      slider.oninput = () => this.goTo(this.sliders.map((s) => Number(s.value)));
    });
    this.status.textContent = "";
    this.ready = true;
  }

  read(name, content) {
    const buffer = bytesOf(content);
    return niivue.NVImage.loadFromUrl({ url: `${name}.nii.gz`, name: `${name}.nii.gz`, buffer });
  }

  /** Puts the chosen image under the labels; where the result lacks it, its first one. */
  async show() {
    const images = this.result.images;
    const modality = chosen("image");
    const name = modality in images ? modality : Object.keys(images)[0];
    if (!this.images.has(name)) this.images.set(name, await this.read(name, images[name]));
    if (chosen("image") !== modality) return; // another one was chosen meanwhile
    const place = this.viewer.volumes.length ? this.voxel() : null;
    const [back, overlays] = [this.images.get(name), [this.labels]];
    Object.assign(this.viewer, { volumes: [back, ...overlays], back, overlays });
    this.colour();
    if (place) this.goTo(place);
    const title = form.querySelector(`option[value=${CSS.escape(name)}]`).textContent;
    const words = `${title} of ${this.result.name} with labels; the sliders below move the slices`;
    this.figure.querySelector("canvas").setAttribute("aria-label", words);
  }

  colour() {
    const shown = shownLabels();
    const map = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
    for (const label of this.result.labels) {
      const [red, green, blue] = label.colour;
      map.R.push(red);
      map.G.push(green);
      map.B.push(blue);
      map.A.push(shown.includes(label.name) ? 255 : 0);
      map.I.push(label.value);
      map.labels.push("");
    }
    this.labels.setColormapLabel(map);
    this.labels.opacity = Number(chosen("opacity")) / 100;
    this.viewer.updateGLVolume();
  }

  layout(view) {
    const types = { planes: 3, axial: 0, coronal: 1, sagittal: 2, render: 4 };
    this.viewer.setSliceType(types[view]);
  }

  voxel() {
    return [...this.viewer.frac2vox(this.viewer.scene.crosshairPos)].slice(0, 3).map(Math.round);
  }

  goTo(voxel) {
    this.viewer.scene.crosshairPos = this.viewer.vox2frac(voxel);
    this.viewer.drawScene();
    this.tell();
    this.moved(this);
  }

  /** Sets the sliders to where the cross is. */
  tell() {
    this.voxel().forEach((at, axis) => {
      const [slider, side] = [this.sliders[axis], this.result.sides[axis]];
      slider.value = at;
      const text = `${side.first + at * side.step + 1} / ${side.n}`;
      slider.parentElement.querySelector("output").textContent = text;
      slider.setAttribute("aria-valuetext", `slice ${text.replace("/", "of")}`);
    });
  }

  fail(error) {
    this.status.textContent =
      "The images cannot be shown: this browser has no WebGL2, or it is switched off. " +
      `The numbers on this page do not need it. (${error.message || error})`;
  }
}

const panels = results.map(
  (result, n) => new Panel(document.querySelectorAll(".panel")[n], result));
const each = (act) => Promise.all(panels.filter((panel) => panel.ready).map(act));

/** Moves the other panels along, as far as their images go. */
function together(panel) {
  if (!form.elements.together?.checked || together.busy) return;
  together.busy = true;
  each((other) => {
    if (other === panel) return;
    const sides = other.result.sides;
    const at = panel.voxel().map((v, axis) => {
      const [from, to] = [panel.result.sides[axis], sides[axis]];
      const place = Math.round((from.first + v * from.step - to.first) / to.step);
      return Math.min(Math.max(place, 0), to.size - 1);
    });
    other.goTo(at);
  });
  together.busy = false;
}

function connect() {
  form.inert = false;
  form.onsubmit = (event) => event.preventDefault();
  form.elements.image.onchange = () =>
    each((panel) => panel.show().catch((error) => panel.fail(error)));
  boxes("view").forEach((box) => (box.onchange = () => each((panel) => panel.layout(box.value))));
  boxes("label").forEach((box) => (box.onchange = () => each((panel) => panel.colour())));
  form.elements.opacity.oninput = (event) => {
    event.target.nextElementSibling.textContent = `${event.target.value} %`;
    each((panel) => panel.colour());
  };
  form.querySelectorAll("button[data-region]").forEach((button) => {
    button.onclick = () => {
      const labels = JSON.parse(button.dataset.region);
      boxes("label").forEach((box) => (box.checked = labels.includes(box.value)));
      each((panel) => panel.colour());
    };
  });
  form.querySelector("button[name=centre]").onclick = () =>
    each((panel) => panel.goTo(panel.result.centre));
}

async function start() {
  form.inert = true; // no choice is lost while the images load
  for (const panel of panels) {
    try {
      await panel.open();
    } catch (error) {
      panel.fail(error);
      console.error(error);
    }
    panel.moved = together;
  }
  connect();
  if (panels.length > 1 && panels[0].ready) together(panels[0]);
  document.documentElement.dataset.state = panels.every((p) => p.ready) ? "ready" : "failed";
}

start();
